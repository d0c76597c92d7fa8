// Package health answers the kubelet's probes, and holds the node's health port, which only
// one agent of a node can have: while an agent holds it, no other one writes to the kernel.
//
// Checks says whether an agent lives and is ready. The sync loop tells it of each pass; it is
// safe for concurrent use, and nothing is called while it is locked.
package health
