package ruleset

import "net/netip"

// Family is an IP version.
type Family uint8

// The IP families, in the order in which they are applied.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Families lists both families.
func Families() []Family { return []Family{IPv4, IPv6} }

// String returns "IPv4" or "IPv6".
func (f Family) String() string {
	if f == IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// Holds reports whether the address is of this family.
func (f Family) Holds(addr netip.Addr) bool { return addr.Is4() == (f == IPv4) }

// Ruleset is the desired state of one family.
type Ruleset struct {
	Family Family
	Hooks  []Hook
	Chains []Chain // sorted by name
	Sets   []Set   // sorted by name; every set that a rule names
}

// Hook is a jump from a built-in chain, ahead of all of that
// chain's other rules.
type Hook struct {
	Builtin string // FORWARD, INPUT, PREROUTING
	Match   []Match
	Chain   string
}

// Rule returns the hook as a rule of its built-in chain.
func (h Hook) Rule() Rule { return Rule{Match: h.Match, Action: Jump, Target: h.Chain} }

// Chain is a list of rules. A packet that passes its end returns to the caller.
type Chain struct {
	Name  string
	Rules []Rule
}

// SetNames lists the sets that the chain's rules look up, in the order of the rules. A set that
// several rules look up is listed several times.
func (c Chain) SetNames() []string {
	var names []string
	for i := range c.Rules {
		for _, match := range c.Rules[i].Match {
			if set, ok := match.(SetMatch); ok {
				names = append(names, set.Set)
			}
		}
	}
	return names
}

// Rule does Action with the packets that all of Match match.
type Rule struct {
	Match  []Match
	Action Action
	Reason DropReason // of Drop
	Target string     // the chain of Jump and Goto
}

// Action is what happens to a packet that a rule matches. There is none that
// accepts: what Moat allows returns to the node's other rules.
type Action uint8

// The actions. Jump comes back to the next rule at a Return; Goto doesn't: a
// Return in its chain goes back to where the last Jump came from.
const (
	Return Action = iota
	Drop
	Jump
	Goto
)

// Side is one of the two ends of a packet's way.
type Side uint8

// The sides.
const (
	Source Side = iota
	Destination
)

// Match is a condition on a packet: AddressMatch, SetMatch, AbsentMatch,
// InterfaceMatch, ProtocolMatch, PortMatch, ICMPv6TypeMatch, GroupMatch, EstablishedMatch,
// UnestablishedMatch, ConnectionMatch, MidStreamMatch or one of match.go.
//
//sumtype:decl
type Match interface{ isMatch() }

// AddressMatch compares the bits of an address that are set in Mask.
type AddressMatch struct {
	Side Side
	Addr netip.Addr
	Mask netip.Addr
}

// SetMatch looks the packet up in a set. Sets of HashIPPort look up the
// address and port of the same side. Those of HashIPPortIP look up Side as the
// client and the address and port of the other side as the server.
type SetMatch struct {
	Set  string
	Type SetType
	Side Side
}

// AbsentMatch matches addresses that a set of HashIP doesn't hold.
type AbsentMatch struct {
	Set  string
	Side Side
}

// InterfaceMatch compares the interface that the packet came by (Source) or leaves
// by (Destination). For what a bridge passes from port to port that is the bridge.
type InterfaceMatch struct {
	Side Side
	Name string
}

// ProtocolMatch compares the IP protocol.
type ProtocolMatch struct{ Protocol uint8 }

// PortMatch compares the destination port with at most MaxPortSlots ranges. The
// rule has a ProtocolMatch before it.
type PortMatch struct{ Ranges []PortRange }

// ICMPv6TypeMatch compares the type of an ICMPv6 message. The rule has a
// ProtocolMatch before it.
type ICMPv6TypeMatch struct{ Type uint8 }

// GroupMatch matches IPv4 packets to more than one receiver: multicast, and
// broadcast in any of the node's networks.
type GroupMatch struct{}

// EstablishedMatch matches packets of connections that were let through before
// and the errors that belong to them.
type EstablishedMatch struct{}

// UnestablishedMatch matches all other packets.
type UnestablishedMatch struct{}

// ConnectionMatch matches packets of connections that were let through before, in one
// direction: from the opener of the connection (Source) or to it (Destination). It doesn't match
// errors that belong to them.
type ConnectionMatch struct{ Opener Side }

// MidStreamMatch matches TCP packets that neither belong to a connection nor open one.
type MidStreamMatch struct{}

func (ConnectionMatch) isMatch()    {}
func (MidStreamMatch) isMatch()     {}
func (AddressMatch) isMatch()       {}
func (SetMatch) isMatch()           {}
func (AbsentMatch) isMatch()        {}
func (InterfaceMatch) isMatch()     {}
func (ProtocolMatch) isMatch()      {}
func (PortMatch) isMatch()          {}
func (ICMPv6TypeMatch) isMatch()    {}
func (GroupMatch) isMatch()         {}
func (EstablishedMatch) isMatch()   {}
func (UnestablishedMatch) isMatch() {}

// MaxPortSlots is how many slots the kernel's multiport match has (15, see
// XT_MULTI_PORTS in linux/netfilter/xt_multiport.h). A range takes two.
const MaxPortSlots = 15

// PortRange is a range of ports, both ends inclusive.
type PortRange struct{ First, Last uint16 }

// Slots is the number of multiport slots that the range takes.
func (r PortRange) Slots() int {
	if r.First == r.Last {
		return 1
	}
	return 2
}

// SetType is a kind of address set, named as the kernel names it.
type SetType string

// The set types in use.
const (
	HashIP     SetType = "hash:ip"
	HashNet    SetType = "hash:net"
	HashIPPort SetType = "hash:ip,port"

	// HashIPPortIP holds a client, and the port and the address of a server.
	HashIPPortIP SetType = "hash:ip,port,ip"
)

// Set declares an address set. Members holds the content of a set that is fixed. Where the
// content follows pods, Members is nil, and the agent keeps the members apart.
type Set struct {
	Name     string
	Type     SetType
	Family   Family
	Entering Effect
	Members  Members
}

// Effect is what becomes of packets when a member enters a set. To leave the set has the
// contrary effect.
type Effect uint8

// The effects. Neutral, the zero value, is that of a set of which only the kernel knows: the
// kernel keeps no effect.
const (
	Neutral Effect = iota

	// Closes: more packets are dropped, and none passes that was dropped before.
	Closes

	// Opens: more packets pass, and none is dropped that passed before.
	Opens
)

// Member is an element of a set: an address or a prefix, for HashIPPort and
// HashIPPortIP a protocol and port, and for the latter the server.
type Member struct {
	Prefix   netip.Prefix
	Protocol uint8
	Port     uint16
	Server   netip.Addr
}

// Members is the content of a set.
type Members map[Member]struct{}

// Address returns the member of a HashIP set.
func Address(addr netip.Addr) Member {
	return Member{Prefix: netip.PrefixFrom(addr, addr.BitLen())}
}

// PrefixMatch matches the addresses of a prefix.
func PrefixMatch(side Side, prefix netip.Prefix) AddressMatch {
	return AddressMatch{Side: side, Addr: prefix.Masked().Addr(), Mask: maskOf(prefix)}
}

// HostMatch matches one address.
func HostMatch(side Side, addr netip.Addr) AddressMatch {
	return PrefixMatch(side, netip.PrefixFrom(addr, addr.BitLen()))
}

// maskOf returns the bits of a prefix as an address.
func maskOf(prefix netip.Prefix) netip.Addr {
	mask := make([]byte, prefix.Addr().BitLen()/8)
	for bit := range prefix.Bits() {
		mask[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(mask)
	return addr
}
