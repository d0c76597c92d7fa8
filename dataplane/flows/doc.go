// Package flows finds established connections that policies forbid by now, and says which of
// them are cut: rules let packets of known connections pass, so a policy that comes later would
// not reach them.
//
// Scanner goes through the kernel's table of connections beside the sync loop, which asks it
// for scans and takes what they found. It is safe for concurrent use; its lock is taken before
// that of node.Model, never after. Cuts belongs to the sync loop. It cuts a class of
// connections until no scan finds it any more, or the model allows it again.
//
// Both ask policy.Judge, as the tests' oracle does, through a lookup that knows what this node
// enforces: the policies of its own pods, and the links that rules close.
package flows
