// Package progress tells the user how far a command is, and waits: for work that is done
// in parallel, and for a state that comes. It prints to stderr.
//
// Every package of the local cluster may import it. It imports none of them.
package progress
