// Package selector keeps track of the pod addresses that each peer selector selects.
//
// An Index is told of pods and namespaces, one at a time, and of the sets that are wanted. At
// any moment it knows the members of each set (Elements), and what changed since it was asked
// last (Changes). So a pod event costs the sets that the pod enters or leaves, and never a walk
// over the cluster. Addresses says which pods own which addresses.
//
// Selectors are evaluated for classes of pods, not for pods: pods of one namespace with equal
// labels are in the same sets. Memory is shared the same way. A class lists its pods and its
// sets, a set lists its classes, and no set lists an address. Most pods come to a class that
// exists, and cost no evaluation. A new class is compared only with sets that require one of its
// labels, and with sets of its namespace that require none (labels.go).
//
// What always holds:
//   - Elements agrees with a recomputation from all pods, namespaces and wanted sets.
//   - The changes of a set add up to its elements.
//   - Elements doesn't depend on the order in which pods, namespaces and sets came.
//
// The package is pure. An Index and an Addresses must not be used by several goroutines at once.
package selector
