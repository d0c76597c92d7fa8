package compile

import (
	"net/netip"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Links names the interfaces of the node behind which pods are that may not send
// (Egress) or receive (Ingress) everything. Each list is sorted and names nothing
// twice.
//
// On a link, pods also have addresses that the API doesn't know: link-local ones,
// and those of multicast and broadcast. A packet with such an address could be any
// of the link's pods', so it is judged by the link. Packets from such an address are
// forbidden where a pod behind the link may not send everything, packets to it where a
// pod may not receive everything.
//
// Rules for the port of a bridge would be fairer to the bridge's other pods. But the node
// learns from the pods' own frames which pod is behind which port: any pod could open
// another pod.
type Links [policy.Directions][]string

// Closed reports whether any link is closed.
func (l Links) Closed() bool { return len(l[policy.Ingress]) > 0 || len(l[policy.Egress]) > 0 }

// Addresses that a pod has besides those that the API knows.
var (
	linkLocal = netip.MustParsePrefix("fe80::/10")
	multicast = netip.MustParsePrefix("ff00::/8")
)

// unknown returns matches for addresses of the direction's subject that the API doesn't know.
func (c *compiler) unknown(d policy.Direction) []ruleset.Match {
	switch {
	case c.family == ruleset.IPv6 && d == policy.Egress:
		return []ruleset.Match{ruleset.PrefixMatch(ruleset.Source, linkLocal)}
	case c.family == ruleset.IPv6:
		return []ruleset.Match{ruleset.PrefixMatch(ruleset.Destination, linkLocal), ruleset.PrefixMatch(ruleset.Destination, multicast)}
	case d == policy.Ingress:
		return []ruleset.Match{ruleset.GroupMatch{}}
	}
	return nil
}

// linkJumps sends packets with such addresses to the link chain. However many links there are, a
// new connection costs one comparison for each kind of address.
func (c *compiler) linkJumps(d policy.Direction) []ruleset.Rule {
	if len(c.links[d]) == 0 {
		return nil
	}
	var rules []ruleset.Rule
	for _, match := range c.unknown(d) {
		rules = append(rules, ruleset.Rule{Match: []ruleset.Match{match}, Action: ruleset.Jump, Target: LinkChain})
	}
	return rules
}

// linkChain drops packets from and to unknown addresses behind the links.
func (c *compiler) linkChain() {
	var drops []ruleset.Rule
	for d := range policy.Direction(policy.Directions) {
		for _, match := range c.unknown(d) {
			for _, link := range c.links[d] {
				behind := ruleset.InterfaceMatch{Side: subjectSide(d), Name: link}
				drops = append(drops, drop(ruleset.ClosedLink, match, behind))
			}
		}
	}
	if len(drops) > 0 {
		c.addChain(LinkChain, append(c.listenerMessages(), drops...)...)
	}
}

// advertisements drops router advertisements (134) that don't come from the node, which is the
// router of its pods: they would give a pod one more address, of which the API knows nothing.
func (c *compiler) advertisements() []ruleset.Rule {
	if c.family != ruleset.IPv6 {
		return nil
	}
	var rules []ruleset.Rule
	for _, link := range c.closedLinks() {
		behind := ruleset.InterfaceMatch{Side: ruleset.Destination, Name: link}
		rules = append(rules, drop(ruleset.ForeignRouter, icmpv6(134, behind)...))
	}
	return rules
}
