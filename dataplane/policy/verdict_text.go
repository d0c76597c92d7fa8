package policy

import (
	"fmt"
	"strings"
)

// String explains the verdict to people: what was decided, which policy decided, and for a
// denial why each rule of each isolating policy didn't match.
func (v Verdict) String() string {
	var s strings.Builder
	fate := "denied"
	if v.Allowed() {
		fate = "allowed"
	}
	fmt.Fprintf(&s, "%s: %s", fate, v.Flow)
	for _, decisions := range []Decisions{v.Egress, v.Ingress} {
		for i := range decisions {
			decisions[i].write(&s, v.Flow)
		}
	}
	return s.String()
}

// String returns source, destination, protocol and, where it has one, the port.
func (f Flow) String() string {
	text := fmt.Sprintf("%s -> %s %s", f.Source, f.Destination, f.Protocol)
	if f.Port != 0 {
		text += fmt.Sprintf(" port %d", f.Port)
	}
	return text
}

// String returns the protocol's name, or its number where it has none here.
func (p Protocol) String() string {
	switch p {
	case ICMP:
		return "ICMP"
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case ICMPv6:
		return "ICMPv6"
	case SCTP:
		return "SCTP"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

func (d *Decision) write(s *strings.Builder, flow Flow) {
	fmt.Fprintf(s, "\n%s of pod %s: ", d.Direction, d.Pod.Key())
	switch d.Reason {
	case NotIsolated:
		s.WriteString("allowed, no policy isolates it")
	case ToItself:
		s.WriteString("allowed, a pod can always reach itself")
	case FromItsNode:
		s.WriteString("allowed, a node can always reach its own pods")
	case AllowedByRule:
		fmt.Fprintf(s, "allowed by %s, spec.%s[%d]", d.By.Key(), d.Direction.field(), d.Rule)
	case Denied:
		s.WriteString("denied, no rule of the policies that isolate it matches")
	}
	for i := range d.Refusals {
		d.Refusals[i].write(s, d.Direction, flow)
	}
}

func (r *Refusal) write(s *strings.Builder, d Direction, flow Flow) {
	if len(r.Rules) == 0 {
		fmt.Fprintf(s, "\n  %s has no %s rules", r.Policy.Key(), d.field())
	}
	for i := range r.Rules {
		fmt.Fprintf(s, "\n  %s, spec.%s[%d]: ", r.Policy.Key(), d.field(), i)
		s.WriteString(strings.Join(r.Rules[i].reasons(d, &r.Policy.Rules[d][i], flow), "; "))
	}
	for _, err := range r.Policy.Unreadable {
		fmt.Fprintf(s, "\n  %s can't be read in part: %v", r.Policy.Key(), err)
	}
}

// reasons lists one text for each peer and port that doesn't match.
func (m *Mismatch) reasons(d Direction, rule *Rule, flow Flow) []string {
	var texts []string
	for i, reason := range m.Peers {
		texts = append(texts, reason.text(&rule.Peers[i], d.otherAddr(flow)))
	}
	if !m.PeerMatches && len(m.Peers) == 0 {
		texts = append(texts, "no peer can be read")
	}
	for i, reason := range m.Ports {
		texts = append(texts, reason.text(&rule.Ports[i], flow))
	}
	if !m.PortMatches && len(m.Ports) == 0 {
		texts = append(texts, "no port can be read")
	}
	return texts
}

func (r PeerMismatch) text(peer *Peer, addr fmt.Stringer) string {
	switch r {
	case NoPod:
		return fmt.Sprintf("%s is not the address of one pod", addr)
	case OtherNamespace:
		if peer.Pods.Namespace != "" {
			return fmt.Sprintf("the pod of %s is not in namespace %s", addr, peer.Pods.Namespace)
		}
		return fmt.Sprintf("the namespace of %s doesn't match (%s)", addr, peer.Pods.Namespaces)
	case OtherLabels:
		return fmt.Sprintf("the labels of the pod of %s don't match (%s)", addr, peer.Pods.Pods)
	case OutsideBlock:
		return fmt.Sprintf("%s is not in %s", addr, peer.Block.CIDR)
	case Excepted:
		return fmt.Sprintf("%s is excepted from %s", addr, peer.Block.CIDR)
	case peerMatches:
	}
	return "matches"
}

func (r PortMismatch) text(port *Port, flow Flow) string {
	switch r {
	case OtherProtocol:
		return fmt.Sprintf("the protocol is not %s", port.Protocol)
	case OtherNumber:
		if port.First == port.Last {
			return fmt.Sprintf("the port is not %d", port.First)
		}
		return fmt.Sprintf("the port is not in %d to %d", port.First, port.Last)
	case NameNotServed:
		return fmt.Sprintf("%s serves no port named %q over %s", flow.Destination, port.Name, port.Protocol)
	case NameElsewhere:
		return fmt.Sprintf("the port named %q of %s is another one", port.Name, flow.Destination)
	case portMatches:
	}
	return "matches"
}

// field is the name of the direction's rules in the object.
func (d Direction) field() string { return strings.ToLower(d.String()) }

// otherAddr is the address that the rules of the direction are about.
func (d Direction) otherAddr(flow Flow) fmt.Stringer {
	if d == Ingress {
		return flow.Source
	}
	return flow.Destination
}
