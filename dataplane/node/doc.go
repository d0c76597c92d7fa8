// Package node holds what an agent knows of its node and of the cluster around it: pods,
// namespaces and policies as the API shows them, sandboxes as the container runtime shows
// them, and the addresses that pods left behind.
//
// The Model is written by informers and by the runtime, and read by the sync loop; it is safe
// for concurrent use. It owns its lock: no other package takes it. View hands out immutable values,
// while Members and Peers lend what would be too large to copy to a function, which must not
// ask the model for anything. The model calls nothing else while it is locked, so its lock is
// the last in every order: a caller may hold a lock of its own, such as that of pods' starts.
//
// Isolation never ends by another pod's status, and never before the API, the runtime and the
// network agree that a pod is gone (see orphans).
package node
