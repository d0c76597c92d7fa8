// Package judge decides where a policy is enforced, and which other policies allow more
// than it. Its input is what the operator has read: the report of each node, the state of its
// agent, and the pods that the policy selects. Its output is what a status says.
//
// It is pure. It has no client and no clock, and the same input gives the same output,
// whatever the order of nodes and policies.
//
// These hold for every input:
//   - Enforced is True only where each node that runs a selected pod is current. A node is
//     current only where its own report proves it: see Policy.
//   - What can't be compared counts as allowing more. NeighboursOf may name a policy that
//     allows nothing more, but never leaves one out that does.
package judge
