// Package chaos proves that no fault opens or cuts anything: while agents are
// killed and upgraded, while the API server, etcd, iptables and the kernel's state
// fail under them, probes flow every millisecond between pods that may talk and pods
// that may not, and every packet is accounted for.
// Pods that nothing isolates have their network meanwhile, and get it when they start.
//
// It is all tests. `make chaos` runs them; see docs/chaos.md.
package chaos
