// Package keeper holds the starts of a node's pods until a sync has programmed them, and says in
// the condition PodStartGuarded whether it can.
//
// Keeper implements podstart.Keeper and is safe for concurrent use. Its lock is taken before that
// of node.Model, never after. A start is held for a bounded time: a runtime holds all
// pods' starts one after the other. A pod that starts before its rules are there is closed.
package keeper
