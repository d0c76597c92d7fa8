// Package compile turns what a node has to enforce into rules and sets.
//
// Compile makes an Output of one IP family: from the endpoints of the node, the links behind
// which they are, and the guard of addresses that no known pod has. Output.Cut and
// Output.JudgeSources add the rules for established connections and for forged sources. An
// Output belongs to its caller; functions of this package may run at the same time.
//
// docs/dataplane.md describes the chains. What holds for every output:
//   - No rule accepts. An allowed packet returns to the node's other rules.
//   - A packet that no rule allows is dropped. So is a packet of an isolated pod that no chain
//     knows: a mistake closes.
//   - Peer sets, prefix sets and profile chains have a digest of their content as their name. A
//     name in the kernel says what it holds, and pods with the same rules share one chain. Where
//     two contents have one name, what needs the second allows nothing.
//   - Each rule that drops has a reason, and each set says whether a member that enters it
//     closes or opens something.
//   - The same input gives the same bytes.
//
// The fate of each packet is the one that policy.Evaluate gives it: the tests compare both on
// random clusters.
package compile
