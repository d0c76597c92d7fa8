// Package policy is the model of what NetworkPolicy means.
//
// It turns API objects into values that hold only what decides a packet's fate (ParsePod,
// ParseNetworkPolicy), says which policies isolate a pod (Endpoints), and judges a flow
// (Evaluate, Judge). The rest of the dataplane has to agree with Evaluate.
//
// What always holds:
//   - A part of a policy that can't be read closes: an unreadable peer or port matches nothing,
//     an unreadable requirement of the policy's own selector excludes no pod.
//   - Policies are asked in stages (stage.go). A pod that no policy isolates is open.
//   - A pod always reaches itself, and a node its own pods.
//
// The package is pure: no client, no clock, no logger. Its values are immutable once they are
// made, and goroutines may share them.
package policy
