package policy

import "net/netip"

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

	// Nodes names the node that owns an address. An address that neither a node
	// nor a pod owns is outside of the cluster.
	Nodes map[netip.Addr]string

	// Ranges are those of the nodes whose ranges are known.
	Ranges Ranges
}

// Verdict is the fate of a flow: the sender's egress and the receiver's ingress
// must both allow it.
type Verdict struct {
	Flow Flow

	// Egress and Ingress hold one decision for each pod that owns the source or
	// the destination. An address that isn't a pod's has none. Where several pods show one
	// address there are several, and all must allow.
	Egress  Decisions
	Ingress Decisions
}

// Allowed reports whether the flow passes.
func (v Verdict) Allowed() bool { return v.Egress.Allowed() && v.Ingress.Allowed() }

// Decisions are those of all pods at one end of a flow.
type Decisions []Decision

// Allowed reports whether every decision lets the flow pass.
func (ds Decisions) Allowed() bool {
	for i := range ds {
		if !ds[i].Allowed() {
			return false
		}
	}
	return true
}

// Decision is what one pod's policies say about a flow in one direction.
type Decision struct {
	Direction Direction
	Pod       *Pod
	Reason    Reason

	// Isolating lists the policies that isolate the pod in this direction.
	Isolating []*Policy

	// By is the first policy with a rule that allows the flow, and Rule the index
	// of the rule in its direction. Nil unless Reason is AllowedByRule.
	By   *Policy
	Rule int

	// Refusals says for each isolating policy why none of its rules matches.
	// Empty unless Reason is Denied.
	Refusals []Refusal
}

// Reason is why a decision is as it is.
type Reason uint8

// The reasons, in the order in which they are checked.
const (
	// NotIsolated: no policy isolates the pod in this direction.
	NotIsolated Reason = iota

	// ToItself: no policy can forbid a pod to send to itself.
	ToItself

	// FromItsNode: no policy can forbid a node to send to its own pods, or the
	// kubelet's probes would fail.
	FromItsNode

	// AllowedByRule: a rule of a policy matches.
	AllowedByRule

	// Denied: policies isolate the pod and no rule of any of them matches.
	Denied
)

// Allowed reports whether this direction lets the flow pass.
func (d *Decision) Allowed() bool { return d.Reason != Denied }

// Refusal says why a policy doesn't allow a flow.
type Refusal struct {
	Policy *Policy

	// Rules has one entry for each rule of the direction. Empty: the policy has
	// none, and so allows nothing.
	Rules []Mismatch
}

// Lookup answers the questions of a verdict. The answers must not change while one flow is
// judged.
type Lookup interface {
	// Owners returns the pods that own an address: see OwnersOf.
	Owners(addr netip.Addr) Owners

	// Isolating returns the policies that isolate a pod in a direction.
	Isolating(d Direction, pod *Pod) []*Policy

	// Labels returns the labels of the namespaces.
	Labels() Namespaces

	// Node names the node that owns an address, empty for none.
	Node(addr netip.Addr) string
}

// Evaluate judges a flow and gives the reasons.
//
// Addresses that the API doesn't know, such as IPv6 link-local ones, are treated
// as outside of the cluster. On a bridge the node closes more: see
// docs/dataplane.md.
func (c *Cluster) Evaluate(flow Flow) Verdict {
	asked := clusterLookup{c}
	v := Judge(asked, flow)
	source, destination := endOf(asked, flow.Source), endOf(asked, flow.Destination)
	for i := range v.Egress {
		v.Egress[i].explain(asked, flow, destination)
	}
	for i := range v.Ingress {
		v.Ingress[i].explain(asked, flow, source)
	}
	return v
}

// Judge is Evaluate without the Refusals: it costs the look-ups and one comparison
// with each rule, however large the cluster is.
func Judge(in Lookup, flow Flow) Verdict {
	source, destination := endOf(in, flow.Source), endOf(in, flow.Destination)
	return Verdict{
		Flow:    flow,
		Egress:  decide(in, Egress, flow, source, destination),
		Ingress: decide(in, Ingress, flow, destination, source),
	}
}

// clusterLookup searches the whole cluster for every answer.
type clusterLookup struct{ *Cluster }

func (c clusterLookup) Owners(addr netip.Addr) Owners { return OwnersOf(addr, c.Pods, c.Ranges) }

func (c clusterLookup) Isolating(d Direction, pod *Pod) []*Policy {
	var isolating []*Policy
	for _, p := range c.Policies {
		if p.Isolates[d] && p.Selects(pod) {
			isolating = append(isolating, p)
		}
	}
	return isolating
}

func (c clusterLookup) Labels() Namespaces { return c.Namespaces }

func (c clusterLookup) Node(addr netip.Addr) string { return c.Nodes[addr] }

// end is one end of a flow.
type end struct {
	addr netip.Addr

	// owners are the pods whose policies decide what this end may do.
	owners []*Pod

	// peer is the pod that the other end's rules see here. It is nil for none.
	peer *Pod

	// node is the node that owns the address, empty for none.
	node string
}

func endOf(in Lookup, addr netip.Addr) end {
	owners := in.Owners(addr)
	return end{addr: addr, owners: owners.All, peer: owners.Peer, node: in.Node(addr)}
}

// decide asks the policies of each pod that owns the subject's end.
func decide(in Lookup, d Direction, flow Flow, subject, other end) Decisions {
	var decisions Decisions
	for _, pod := range subject.owners {
		decision := Decision{Direction: d, Pod: pod, Isolating: in.Isolating(d, pod)}
		switch {
		case len(decision.Isolating) == 0:
			decision.Reason = NotIsolated
		case flow.Source == flow.Destination:
			decision.Reason = ToItself
		case d == Ingress && other.node != "" && other.node == pod.Node:
			decision.Reason = FromItsNode
		default:
			decision.askPolicies(decision.question(in, flow, other))
		}
		decisions = append(decisions, decision)
	}
	return decisions
}

// askPolicies decides by the stages of the pod's policies.
func (d *Decision) askPolicies(q question) {
	switch a := q.ask(networkPolicies(d.Isolating)); {
	case a.action == deny:
		d.Reason = Denied
	case a.by != nil:
		d.Reason, d.By, d.Rule = AllowedByRule, a.by, a.rule
	default:
		d.Reason = NotIsolated
	}
}

// question is what the decision asks rules.
func (d *Decision) question(in Lookup, flow Flow, other end) question {
	return question{in: in, direction: d.Direction, flow: flow, other: other, destination: d.destination(other)}
}

// explain adds to a denial why no rule matches.
func (d *Decision) explain(in Lookup, flow Flow, other end) {
	if d.Reason != Denied {
		return
	}
	q := d.question(in, flow, other)
	for _, p := range d.Isolating {
		refusal := Refusal{Policy: p}
		for i := range p.Rules[d.Direction] {
			refusal.Rules = append(refusal.Rules, p.Rules[d.Direction][i].mismatch(&q))
		}
		d.Refusals = append(d.Refusals, refusal)
	}
}

// destination is the pod whose named ports count, nil for none.
func (d *Decision) destination(other end) *Pod {
	if d.Direction == Egress {
		return other.peer
	}
	return d.Pod
}
