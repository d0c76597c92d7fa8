// Package departure decides what an agent that was told to end does with its node: it
// leaves the rules, or it removes them.
//
// An agent ends for many reasons, and most of them mean that another agent follows: an
// update, a restart, a drain. Then its rules have to stay, or isolated pods would be open
// until that agent runs. Where no agent follows, the rules have to go, or they would close new
// pods for good. So the rules stay unless the agent has proof that no agent will look after them:
//
//   - its Namespace is being deleted,
//   - or the DaemonSet is there and doesn't select the Node,
//   - or the DaemonSet is gone, and the marker of the release was deleted and did not
//     come back.
//
// A DaemonSet that is gone is no proof alone: "kubectl replace --force", Argo CD's Replace and
// Flux' force delete it and make it again.
//
// The package is pure. It gets what the agent has seen and how much time has passed, and returns
// the decision with its reason.
package departure
