// Package survey reads what there is to judge about a policy: the pods that it selects, the
// nodes that these run on, their agents and reports, and the other policies of the namespace.
//
// It reads the manager's cache and asks the API server nothing. What it costs depends on the
// pods of one policy, and not on the size of the cluster: see PodNodeIndex. It changes no object
// that it reads.
package survey
