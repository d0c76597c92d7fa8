package policy

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// Direction is a direction of traffic, seen from the pod that a policy selects.
type Direction uint8

// The two directions. Their values index arrays of length Directions.
const (
	Ingress Direction = iota
	Egress

	Directions = 2
)

// String returns the name that the API uses.
func (d Direction) String() string {
	if d == Ingress {
		return "Ingress"
	}
	return "Egress"
}

// Protocol is an IP protocol number (IANA "Assigned Internet Protocol Numbers").
type Protocol uint8

// Protocols that a NetworkPolicy can name, and ICMP, which it can't.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

// Pod is a pod as far as enforcement depends on it.
type Pod struct {
	Namespace string
	Name      string
	Node      string // empty until the pod is scheduled

	// UID is the one by which the container runtime knows the pod. ParsePod leaves it
	// empty: only the pod's own node needs it.
	UID types.UID

	Labels labels.Set

	// Addrs are the pod's own addresses. A hostNetwork pod and a pod that has
	// ended own none, so they are neither selected nor peers.
	Addrs []netip.Addr

	// NodeAddrs are the addresses of its node, which a hostNetwork pod shows while it runs.
	// Other pods have none. See OwnersOf.
	NodeAddrs []netip.Addr

	// Unusable names the addresses of the pod's status that no pod can have, each
	// with the reason. Empty for none. They are not in Addrs.
	Unusable string

	// Ports are the named container ports, sorted.
	Ports []NamedPort

	// Subject is false for pods that no policy can select: hostNetwork pods and
	// those that have ended.
	Subject bool

	// Terminating means that the pod is being deleted. It stays enforced and stays
	// a peer, but another pod that shows its address may be the peer: see OwnersOf.
	Terminating bool

	// RawSockets says that a container of the pod may have CAP_NET_RAW, and so send packets
	// with any address as source. No rule depends on it.
	RawSockets bool
}

// Key identifies the pod.
func (p *Pod) Key() types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

// Equal reports whether enforcement treats both pods the same.
func (p *Pod) Equal(other *Pod) bool {
	return p.Key() == other.Key() && p.Node == other.Node && p.UID == other.UID &&
		p.Subject == other.Subject && p.Terminating == other.Terminating && p.RawSockets == other.RawSockets &&
		p.Unusable == other.Unusable && slices.Equal(p.Addrs, other.Addrs) && slices.Equal(p.NodeAddrs, other.NodeAddrs) &&
		slices.Equal(p.Ports, other.Ports) && maps.Equal(p.Labels, other.Labels)
}

// Resolve returns the number of the pod's container port of that name and
// protocol. Where several containers use one name the first that the pod lists
// counts.
func (p *Pod) Resolve(name string, protocol Protocol) (uint16, bool) {
	for _, port := range p.Ports {
		if port.Name == name && port.Protocol == protocol {
			return port.Number, true
		}
	}
	return 0, false
}

// NamedPort is a container port with a name.
type NamedPort struct {
	Name     string
	Protocol Protocol
	Number   uint16
}

// Namespaces maps the name of each namespace to its labels. A pod whose
// namespace isn't known yet matches no namespace selector but the empty one, which
// means every namespace whatever its labels are.
type Namespaces map[string]labels.Set

// Policy is one NetworkPolicy.
type Policy struct {
	Namespace  string
	Name       string
	UID        types.UID
	Generation int64

	// Created is when the policy was made, in seconds since the epoch.
	Created int64

	// Selector selects the pods that the policy isolates, in its namespace.
	Selector labels.Selector

	// Isolates says for each direction whether the policy isolates its pods.
	Isolates [Directions]bool

	// Rules are the allowing rules of each direction, in the order of the object.
	Rules [Directions][]Rule

	// Unreadable lists the parts that could not be understood. Each such part is read in
	// the way that closes most: an unreadable peer or port matches nothing, an
	// unreadable requirement of the policy's own selector excludes no pod. Of many
	// parts, the first texts are kept, and the number of all further parts.
	Unreadable []error
}

// Key identifies the policy.
func (p *Policy) Key() types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

// Selects reports whether the policy applies to the pod.
func (p *Policy) Selects(pod *Pod) bool {
	return pod.Subject && p.Namespace == pod.Namespace && p.Selector.Matches(pod.Labels)
}

// Rule allows the traffic that one of its peers and one of its ports match.
type Rule struct {
	// AnyPeer means that the rule doesn't restrict peers. It is a field of its own: a rule
	// without a readable peer must not match every peer.
	AnyPeer bool
	Peers   []Peer

	// AnyPort means that the rule allows every port of every protocol, and
	// protocols without ports.
	AnyPort bool

	// action is what the rule says of this traffic. Rules of NetworkPolicies accept. It stands
	// here since it takes no memory beside AnyPort.
	action action

	Ports []Port
}

// Peer is a group of pods or a block of addresses: exactly one is set.
type Peer struct {
	Pods  *PodPeer
	Block *Block
}

// PodPeer selects pods.
type PodPeer struct {
	// Namespace is the only namespace meant. Empty: those that Namespaces selects.
	Namespace  string
	Namespaces labels.Selector
	Pods       labels.Selector
}

// EveryPod selects all pods of the cluster.
func EveryPod() PodPeer {
	return PodPeer{Namespaces: labels.Everything(), Pods: labels.Everything()}
}

// Key is equal for two peers exactly if they are written alike. It names the
// set that the peer's members live in.
func (p *PodPeer) Key() string {
	if p.Namespace != "" {
		return "namespace=" + p.Namespace + " pods=" + p.Pods.String()
	}
	return "namespaces=(" + p.Namespaces.String() + ") pods=" + p.Pods.String()
}

// MatchesNamespace reports whether the peer selects pods of the namespace.
func (p *PodPeer) MatchesNamespace(namespace string, namespaces Namespaces) bool {
	if p.Namespace != "" {
		return p.Namespace == namespace
	}
	nsLabels, known := namespaces[namespace]
	return p.Namespaces.Empty() || known && p.Namespaces.Matches(nsLabels)
}

// PeerSet is a set of addresses that follows pods: those of a peer, or one named
// port of each of the peer's pods.
type PeerSet struct {
	Pods PodPeer

	// PortName and Protocol choose a named port. PortName is empty for a set of
	// plain addresses.
	PortName string
	Protocol Protocol
}

// Key is equal for two sets exactly if they are written alike.
func (s *PeerSet) Key() string {
	if s.PortName == "" {
		return s.Pods.Key()
	}
	return fmt.Sprintf("%s port=%d/%s", s.Pods.Key(), s.Protocol, s.PortName)
}

// Elements calls yield with what a pod that the peer selects contributes to the set:
// nothing where the pod doesn't serve the named port.
func (s *PeerSet) Elements(pod *Pod, yield func(Element)) {
	var number uint16
	if s.PortName != "" {
		var served bool
		if number, served = pod.Resolve(s.PortName, s.Protocol); !served {
			return
		}
	}
	for _, addr := range pod.Addrs {
		yield(Element{Addr: addr, Protocol: s.Protocol, Port: number})
	}
}

// Element is a member of a PeerSet. Protocol and Port are 0 in a set of plain
// addresses.
type Element struct {
	Addr     netip.Addr
	Protocol Protocol
	Port     uint16
}

// Block is a range of addresses without the ranges that it excepts.
type Block struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
}

// Port is a protocol with a range of ports, a named port, or all its ports.
type Port struct {
	Protocol Protocol

	// Name is the name of a container port of the destination pod.
	Name string

	// First and Last bound the range, both inclusive, where Name is empty. A
	// port without a number has the range 0 to 65535.
	First, Last uint16
}
