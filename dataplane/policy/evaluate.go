package policy

import (
	"net/netip"
)

// Flow is the first packet of a connection, as the node sees it after
// destination NAT: behind a Service the destination is the pod and its target
// port.
type Flow struct {
	Source      netip.Addr
	Destination netip.Addr
	Protocol    Protocol
	Port        uint16 // destination port; 0 for protocols without ports
}

// Cluster is what a verdict depends on.
type Cluster struct {
	Pods       []*Pod
	Namespaces Namespaces
	Policies   []*Policy
}

// Verdict is the fate of a flow: the sender's egress and the receiver's ingress
// must both allow it.
type Verdict struct {
	Egress  Decision
	Ingress Decision
}

// Allowed reports whether the flow passes.
func (v Verdict) Allowed() bool { return v.Egress.Allowed() && v.Ingress.Allowed() }

// Decision is what one pod's policies say of a flow in one direction.
type Decision struct {
	// Isolating lists the policies that isolate the pod in this direction. While
	// it is empty everything is allowed.
	Isolating []*Policy

	// By is the first policy that allows the flow, and Rule the index of its
	// rule. Nil where no policy isolates the pod, where none allows the flow and
	// where the pod talks to itself.
	By   *Policy
	Rule int

	// Self is true where the pod talks to itself, which no policy can forbid.
	Self bool
}

// Allowed reports whether this direction lets the flow pass.
func (d Decision) Allowed() bool { return len(d.Isolating) == 0 || d.By != nil || d.Self }

// Evaluate judges a flow. Addresses that no pod owns, such as those of nodes,
// have no policies of their own.
//
// Traffic from a pod's own node to the pod never comes here: the kubelet's
// probes always pass, and which addresses are the node's is not in the model.
func (c *Cluster) Evaluate(flow Flow) Verdict {
	from, to := c.owner(flow.Source), c.owner(flow.Destination)
	self := from != nil && from == to
	return Verdict{
		Egress:  c.decide(Egress, from, to, flow.Destination, to, flow, self),
		Ingress: c.decide(Ingress, to, from, flow.Source, to, flow, self),
	}
}

// owner returns the pod with that address, nil for none.
func (c *Cluster) owner(addr netip.Addr) *Pod {
	for _, pod := range c.Pods {
		for _, own := range pod.Addrs {
			if own == addr {
				return pod
			}
		}
	}
	return nil
}

// decide asks the policies of subject about the peer at the other end. Named
// ports are those of the destination pod, in both directions.
func (c *Cluster) decide(d Direction, subject, peer *Pod, peerAddr netip.Addr, destination *Pod, flow Flow, self bool) Decision {
	decision := Decision{Self: self}
	if subject == nil {
		return decision
	}
	for _, p := range c.Policies {
		if !p.Isolates[d] || !p.Selects(subject) {
			continue
		}
		decision.Isolating = append(decision.Isolating, p)
		for i := range p.Rules[d] {
			rule := &p.Rules[d][i]
			if decision.By == nil && c.allowsPeer(rule, peer, peerAddr) && rule.allowsPort(destination, flow) {
				decision.By, decision.Rule = p, i
			}
		}
	}
	return decision
}

func (c *Cluster) allowsPeer(rule *Rule, peer *Pod, addr netip.Addr) bool {
	if rule.AnyPeer {
		return true
	}
	for _, p := range rule.Peers {
		if p.Block != nil && p.Block.Contains(addr) {
			return true
		}
		if p.Pods != nil && peer != nil && p.Pods.Matches(peer, c.Namespaces) {
			return true
		}
	}
	return false
}

func (r *Rule) allowsPort(destination *Pod, flow Flow) bool {
	if r.AnyPort {
		return true
	}
	for _, port := range r.Ports {
		if port.Protocol == flow.Protocol && port.matches(destination, flow.Port) {
			return true
		}
	}
	return false
}

func (p Port) matches(destination *Pod, number uint16) bool {
	if p.Name == "" {
		return p.First <= number && number <= p.Last
	}
	if destination == nil {
		return false
	}
	resolved, served := destination.Resolve(p.Name, p.Protocol)
	return served && resolved == number
}
