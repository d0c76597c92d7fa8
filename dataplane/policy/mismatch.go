package policy

import "net/netip"

// Mismatch says why one rule doesn't allow a flow: a rule allows what one of its
// peers and one of its ports match.
type Mismatch struct {
	// PeerMatches and PortMatches say which half of the rule would have allowed
	// the flow. At least one is false.
	PeerMatches, PortMatches bool

	// Peers has the reason of each peer of the rule where none matches, and Ports
	// that of each port. Parts that could not be read are missing: see
	// Policy.Unreadable.
	Peers []PeerMismatch
	Ports []PortMismatch
}

// PeerMismatch is why a peer of a rule isn't the other end of a flow.
type PeerMismatch uint8

// The reasons of peers.
const (
	peerMatches PeerMismatch = iota

	// NoPod: the peer selects pods, and the address is no pod's, or that of a
	// hostNetwork pod, or several running pods show it.
	NoPod
	// OtherNamespace: the peer doesn't select the pod's namespace.
	OtherNamespace
	// OtherLabels: the peer selects the namespace but not the pod's labels.
	OtherLabels
	// OutsideBlock: the address is not in the peer's CIDR.
	OutsideBlock
	// Excepted: the address is in the CIDR, and in one of its exceptions.
	Excepted
)

// PortMismatch is why a port of a rule isn't that of a flow.
type PortMismatch uint8

// The reasons of ports.
const (
	portMatches PortMismatch = iota

	// OtherProtocol: the port is of another protocol.
	OtherProtocol
	// OtherNumber: the number is not the port's, or not in its range.
	OtherNumber
	// NameNotServed: the destination has no container port of that name and
	// protocol, or it is no pod.
	NameNotServed
	// NameElsewhere: the destination serves the name at another number.
	NameElsewhere
)

// matches reports whether one of the rule's peers and one of its ports match.
func (r *Rule) matches(q *question) bool { return r.matchesPort(q) && r.matchesPeer(q) }

func (r *Rule) matchesPort(q *question) bool {
	if r.AnyPort {
		return true
	}
	for i := range r.Ports {
		if r.Ports[i].mismatch(q.flow, q.destination) == portMatches {
			return true
		}
	}
	return false
}

func (r *Rule) matchesPeer(q *question) bool {
	if r.AnyPeer {
		return true
	}
	for i := range r.Peers {
		if r.Peers[i].mismatch(q.in, q.other) == peerMatches {
			return true
		}
	}
	return false
}

// mismatch says why the rule doesn't match.
func (r *Rule) mismatch(q *question) Mismatch {
	m := Mismatch{PeerMatches: r.matchesPeer(q), PortMatches: r.matchesPort(q)}
	if !m.PeerMatches {
		for i := range r.Peers {
			m.Peers = append(m.Peers, r.Peers[i].mismatch(q.in, q.other))
		}
	}
	if !m.PortMatches {
		for i := range r.Ports {
			m.Ports = append(m.Ports, r.Ports[i].mismatch(q.flow, q.destination))
		}
	}
	return m
}

func (p *Peer) mismatch(in Lookup, other end) PeerMismatch {
	if p.Block != nil {
		return p.Block.mismatch(other.addr)
	}
	switch {
	case other.peer == nil:
		return NoPod
	case !p.Pods.MatchesNamespace(other.peer.Namespace, in.Labels()):
		return OtherNamespace
	case !p.Pods.Pods.Matches(other.peer.Labels):
		return OtherLabels
	}
	return peerMatches
}

func (b *Block) mismatch(addr netip.Addr) PeerMismatch {
	if !b.CIDR.Contains(addr) {
		return OutsideBlock
	}
	for _, except := range b.Except {
		if except.Contains(addr) {
			return Excepted
		}
	}
	return peerMatches
}

func (p *Port) mismatch(flow Flow, destination *Pod) PortMismatch {
	if p.Protocol != flow.Protocol {
		return OtherProtocol
	}
	if p.Name == "" {
		if flow.Port < p.First || p.Last < flow.Port {
			return OtherNumber
		}
		return portMatches
	}
	if destination == nil {
		return NameNotServed
	}
	number, served := destination.Resolve(p.Name, p.Protocol)
	switch {
	case !served:
		return NameNotServed
	case number != flow.Port:
		return NameElsewhere
	}
	return portMatches
}
