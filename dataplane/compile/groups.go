package compile

import (
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// A bridge delivers a frame to a group of hosts to all of its ports and to the node itself. The
// node's kernel then takes the packet in it for a connection that was let through, although the
// copies for the ports were dropped (Linux 62e7151ae3eb). Two kinds of packets could use that:
//   - A packet to a single host, in a frame to a group: an answer opens the connection both ways.
//     No honest host sends such packets (RFC 1122, 3.3.6), so EarlyChain drops them before the
//     kernel makes a connection of them.
//   - A packet to a group of hosts: a forged answer of the group opens the connection, as does an
//     answer to a packet with a group as its forged source. No group answers or asks, so the
//     packets of such a connection are judged like those of a new one.

// EarlyChain drops packets that the kernel must not take for connections. Its name doesn't begin
// with ChainPrefix: older agents delete unknown chains that do, but don't know the hook in
// PREROUTING, and the kernel refuses to delete a chain to which a hook leads.
const EarlyChain = "MOAT_" + EarlyHook

// EarlyHook is the built-in chain that leads to EarlyChain.
const EarlyHook = "PREROUTING"

// Addresses of groups of hosts in IPv4, beside the broadcast addresses of networks.
var (
	multicast4 = netip.MustParsePrefix("224.0.0.0/4")
	broadcast4 = netip.MustParsePrefix("255.255.255.255/32")

	// thisNetwork is an old form of broadcast, which hosts receive but don't send (RFC 1122,
	// 3.2.1.3).
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
)

// earlyHook leads frames to groups to the chain. Where rules can't match such frames, the chain
// is empty, and the hook leads the same packets to it as the other hooks do.
func (c *compiler) earlyHook() ruleset.Hook {
	match := ruleset.Match(ruleset.GroupFrameMatch{})
	if !c.host.has(GroupFrames) {
		match = ruleset.UnestablishedMatch{}
	}
	return ruleset.Hook{Builtin: EarlyHook, Match: []ruleset.Match{match}, Chain: EarlyChain}
}

// earlyChain drops packets to a single host that come in a frame to a group, on links of pods
// that may not send or receive everything.
func (c *compiler) earlyChain() {
	links := c.closedLinks()
	if len(links) == 0 || !c.host.has(GroupFrames) {
		c.addChain(EarlyChain)
		return
	}
	toGroup := []ruleset.Match{ruleset.PrefixMatch(ruleset.Destination, multicast)}
	if c.family == ruleset.IPv4 {
		toGroup = []ruleset.Match{ruleset.GroupMatch{}}
	}
	rules := append(c.toThisNetwork(), ruleset.Rule{Match: toGroup, Action: ruleset.Return})
	for _, link := range links {
		from := ruleset.InterfaceMatch{Side: ruleset.Source, Name: link}
		rules = append(rules, drop(ruleset.OddFrame, from))
	}
	c.addChain(EarlyChain, rules...)
}

// toThisNetwork drops packets to 0.0.0.0, where a link is closed.
func (c *compiler) toThisNetwork() []ruleset.Rule {
	if c.family != ruleset.IPv4 || !c.links.Closed() {
		return nil
	}
	return []ruleset.Rule{drop(ruleset.OddFrame, ruleset.PrefixMatch(ruleset.Destination, thisNetwork))}
}

// closedLinks returns the links behind which a pod may not send or receive everything, sorted.
func (c *compiler) closedLinks() []string {
	links := slices.Concat(c.links[policy.Ingress], c.links[policy.Egress])
	slices.Sort(links)
	return slices.Compact(links)
}

// open matches packets of connections that were let through. Where a link is closed, it leaves
// out connections of groups.
func (c *compiler) open() []ruleset.Match {
	var groups []netip.Prefix
	switch {
	case !c.links.Closed():
		return []ruleset.Match{ruleset.OpenMatch{}}
	case c.family == ruleset.IPv6:
		groups = []netip.Prefix{multicast}
	default:
		groups = []netip.Prefix{multicast4, broadcast4}
		for _, addr := range c.host.Broadcasts {
			groups = append(groups, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	var match []ruleset.Match
	for _, group := range groups {
		match = append(match, ruleset.OpenMatch{NotOf: group})
	}
	return match
}
