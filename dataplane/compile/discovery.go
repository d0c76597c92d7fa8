package compile

import (
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Types of neighbour discovery, which is to IPv6 what ARP is to IPv4 (RFC 4861). Router
// advertisements (134) and redirects (137) aren't among them. The router of pods is their node:
// the node's own messages pass OUTPUT, and the node needs none of a pod.
var (
	routerSolicitation = []uint8{133}      // from hosts to routers: to the node alone
	neighbours         = []uint8{135, 136} // neighbour solicitation and advertisement
)

const (
	// discoveryHops is the hop limit of neighbour discovery. It proves that no router has
	// forwarded the packet: a receiver refuses any other (RFC 4861, 6.1 and 7.1).
	discoveryHops = 255

	// discoveryMost is the most bytes of a message that passes, IP header included. A message
	// with a link-layer address and a nonce (RFC 7527) has 80.
	discoveryMost = 128

	// listenerMost is the same for multicast listener discovery: a report of nine groups
	// has 236 (RFC 3810, 5.2).
	listenerMost = 256
)

// discovery lets neighbours send each other messages of the types. No policy is about these
// messages.
func (c *compiler) discovery(types ...uint8) []ruleset.Rule {
	if c.family != ruleset.IPv6 {
		return nil
	}
	var rules []ruleset.Rule
	for _, icmpType := range types {
		match := append(icmpv6(icmpType), c.host.hops(discoveryHops)...)
		rules = append(rules, ruleset.Rule{Match: append(match, c.host.atMost(discoveryMost)...), Action: ruleset.Return})
	}
	return rules
}

// listenerMessages returns the rules that let multicast listener discovery pass:
// 130 query, 131 and 143 report, 132 done. From these messages, switches learn on which ports
// to send neighbour discovery (RFC 4890, 4.4.1).
func (c *compiler) listenerMessages() []ruleset.Rule {
	if c.family != ruleset.IPv6 {
		return nil
	}
	var rules []ruleset.Rule
	for _, icmpType := range []uint8{130, 131, 132, 143} {
		match := icmpv6(icmpType, ruleset.PrefixMatch(ruleset.Destination, multicast))
		rules = append(rules, ruleset.Rule{Match: append(match, c.host.atMost(listenerMost)...), Action: ruleset.Return})
	}
	return rules
}

// icmpv6 matches messages of the type that match all of also too.
func icmpv6(icmpType uint8, also ...ruleset.Match) []ruleset.Match {
	return append(also, ruleset.ProtocolMatch{Protocol: uint8(policy.ICMPv6)}, ruleset.ICMPv6TypeMatch{Type: icmpType})
}
