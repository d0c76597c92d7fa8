// Package ipset puts address sets into the kernel and reads them back.
//
// The changes are worked out as a Plan (pure). It has two halves: Grow before the rules that look
// the sets up, Shrink after them.
//
// What always holds:
//   - Only sets whose name begins with Moat's prefix are read or changed.
//   - An element that the kernel refuses, or a set that can't be made, doesn't keep other elements
//     from their sets.
//   - A set that has to become larger is replaced in one step: packets always see all members.
package ipset
