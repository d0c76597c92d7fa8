// Package conformance proves that Moat enforces NetworkPolicy as Kubernetes means
// it: every case that Cyclonus generates (github.com/mattfenwick/cyclonus) is set
// up in a real API server, the agents of three nodes enforce it, and each pod
// connects to each other one; what happened is compared with Cyclonus' own model.
//
// It is all tests. `make conformance` runs them; see docs/conformance.md.
package conformance
