package policy

import (
	"cmp"
	"slices"
)

// Endpoint is a pod of this node with the policies that isolate it.
type Endpoint struct {
	Pod *Pod

	// Isolating lists for each direction the policies that isolate the pod, in
	// the order of their keys. Empty: the direction is open.
	Isolating [Directions][]*Policy
}

// Isolated reports whether any policy isolates the pod in the direction.
func (e *Endpoint) Isolated(d Direction) bool { return len(e.Isolating[d]) > 0 }

// Restricted reports whether the pod's policies forbid anything in the direction.
// They don't where one of them has a rule for all peers and all ports.
func (e *Endpoint) Restricted(d Direction) bool {
	for _, p := range e.Isolating[d] {
		for i := range p.Rules[d] {
			if p.Rules[d][i].AnyPeer && p.Rules[d][i].AnyPort {
				return false
			}
		}
	}
	return e.Isolated(d)
}

// Endpoints returns what a node has to enforce: its pods that own an address and
// are isolated in any direction, in the order of their keys. Policies that
// select none of the given pods leave no trace.
func Endpoints(local []*Pod, policies []*Policy) []Endpoint {
	byNamespace := map[string][]*Policy{}
	for _, p := range policies {
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
	}
	for _, inNamespace := range byNamespace {
		slices.SortFunc(inNamespace, func(a, b *Policy) int { return cmp.Compare(a.Name, b.Name) })
	}
	var endpoints []Endpoint
	for _, pod := range local {
		if len(pod.Addrs) == 0 {
			continue
		}
		e := Endpoint{Pod: pod}
		for _, p := range byNamespace[pod.Namespace] {
			e.add(p)
		}
		if e.Isolated(Ingress) || e.Isolated(Egress) {
			endpoints = append(endpoints, e)
		}
	}
	slices.SortFunc(endpoints, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(a.Pod.Namespace, b.Pod.Namespace), cmp.Compare(a.Pod.Name, b.Pod.Name))
	})
	return endpoints
}

func (e *Endpoint) add(p *Policy) {
	if !p.Selects(e.Pod) {
		return
	}
	for d, isolates := range p.Isolates {
		if isolates {
			e.Isolating[d] = append(e.Isolating[d], p)
		}
	}
}
