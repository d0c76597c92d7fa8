// Package isolation says what an AppIsolation means: which NetworkPolicy it stands for, in
// the world that it refers to, and what it names that isn't there.
//
// It is pure. It reads no cluster and knows no clock: its caller brings the World that
// ReferencesOf asks for. The same AppIsolation in the same world gives the same policy,
// whatever the order of the world's lists.
//
// It fails closed. What can't be resolved allows no peer.
package isolation
