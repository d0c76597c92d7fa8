// Package pacing bounds the time that the policies of one namespace take from the others of a
// node. Pace lets large changes wait for their turn, with the earlier version in force. Debts
// counts the time that was spent on policies which the kernel doesn't take.
//
// The package asks no clock but for the timer of GoOn: callers say what time it is. Its values
// belong to the sync loop. A policy that waits never opens anything: it isolates the pods that
// it selects, and allows what its version in force allowed.
package pacing
