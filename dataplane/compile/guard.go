package compile

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Guard closes addresses of the node's pods until their rules are in force: a pod has its
// address before the agent learns of the pod.
//
// The zero value guards nothing.
type Guard struct {
	// PodCIDRs are the ranges that the node's pods get their addresses from.
	PodCIDRs []netip.Prefix

	// Local are the addresses of the node's known pods, isolated or not. All other
	// addresses of PodCIDRs are closed, except Foreign behind Uplinks.
	Local []netip.Addr

	// Foreign are addresses of PodCIDRs that pods of other nodes have, and no pod of this node.
	Foreign []netip.Addr

	// Uplinks are the interfaces that lead to Foreign, and to no pod of this node. Behind any
	// other interface, an address of Foreign is closed: there, a new pod of this node has it,
	// and the API doesn't say so yet.
	Uplinks []string
}

// guarded returns the pod CIDRs of the family, sorted.
func (c *compiler) guarded() []netip.Prefix {
	var prefixes []netip.Prefix
	for _, prefix := range c.guard.PodCIDRs {
		if c.family.Holds(prefix.Addr()) {
			prefixes = append(prefixes, prefix.Masked())
		}
	}
	slices.SortFunc(prefixes, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	return slices.Compact(prefixes)
}

// local returns the members of the set of known pods. The set exists where the
// guard does.
func (c *compiler) local() ruleset.Members {
	return c.guardMembers(c.guard.Local)
}

// foreign returns the members of the set of addresses of other nodes' pods. It exists
// where the guard does, so that it can be emptied before the rules change.
func (c *compiler) foreign() ruleset.Members {
	return c.guardMembers(c.guard.Foreign)
}

func (c *compiler) guardMembers(addrs []netip.Addr) ruleset.Members {
	if len(c.guarded()) == 0 {
		return nil
	}
	members := ruleset.Members{}
	for _, addr := range addrs {
		if c.family.Holds(addr) {
			members[ruleset.Address(addr)] = struct{}{}
		}
	}
	return members
}

// guardJumps sends packets to the guard chain that come from (Egress) or go to (Ingress) an
// address that may be a pod's of this node, but isn't a known pod's. The jumps stand behind
// neighbour discovery: a neighbour whose question fails asks again a second later, and would
// find the address only then, after its pod is programmed.
func (c *compiler) guardJumps(d policy.Direction) []ruleset.Rule {
	name, side, target := LocalSet(c.family), subjectSide(d), GuardChain
	if len(c.guard.Uplinks) > 0 {
		target = spareChain(d)
	}
	var rules []ruleset.Rule
	for _, prefix := range c.guarded() {
		rules = append(rules, ruleset.Rule{
			Match: []ruleset.Match{
				ruleset.PrefixMatch(side, prefix),
				ruleset.AbsentMatch{Set: name, Side: side},
			},
			Action: ruleset.Jump,
			Target: target,
		})
	}
	return rules
}

// spareChain is the chain that lets pods of other nodes pass: at the source of packets (Egress)
// or at their destination (Ingress). Each direction has its own chain, since a packet from such a
// pod may go to an address that is closed.
func spareChain(d policy.Direction) string {
	if d == policy.Egress {
		return GuardFromChain
	}
	return GuardToChain
}

// guardChain makes the chain that drops. The counter of its last rule says how many packets came
// too early. The node talks to itself by the loopback interface, also from an address that it has
// among the pods'.
func (c *compiler) guardChain() {
	if len(c.guarded()) == 0 {
		return
	}
	for _, name := range []string{LocalSet(c.family), ForeignSet(c.family)} {
		c.addSet(ruleset.Set{Name: name, Type: ruleset.HashIP, Entering: ruleset.Opens})
	}
	if len(c.guard.Uplinks) > 0 {
		for d := range policy.Direction(policy.Directions) {
			c.addChain(spareChain(d), c.spare(d)...)
		}
	}
	loopback := ruleset.InterfaceMatch{Side: ruleset.Source, Name: "lo"}
	c.addChain(GuardChain, ruleset.Rule{Match: []ruleset.Match{loopback}, Action: ruleset.Return}, drop(ruleset.Guarded))
}

// spare lets packets pass that come from (Egress) or go to (Ingress) a pod of another node, by
// an interface that leads to no pod of this node.
func (c *compiler) spare(d policy.Direction) []ruleset.Rule {
	side := subjectSide(d)
	var rules []ruleset.Rule
	for _, link := range c.guard.Uplinks {
		rules = append(rules, ruleset.Rule{
			Match: []ruleset.Match{
				ruleset.InterfaceMatch{Side: side, Name: link},
				ruleset.SetMatch{Set: ForeignSet(c.family), Type: ruleset.HashIP, Side: side},
			},
			Action: ruleset.Return,
		})
	}
	return append(rules, ruleset.Rule{Action: ruleset.Goto, Target: GuardChain})
}

// GuardedRanges returns the ranges that rules of ForwardChain guard: the Guard.PodCIDRs of the
// agent that wrote them. The rules are as iptables-save prints them.
func GuardedRanges(rules []string) []netip.Prefix {
	var ranges []netip.Prefix
	for _, rule := range rules {
		words := strings.Fields(rule)
		if len(words) < 4 || words[0] != "-s" || !slices.Contains([]string{GuardChain, GuardFromChain}, words[len(words)-1]) {
			continue
		}
		if prefix, err := netip.ParsePrefix(words[1]); err == nil {
			ranges = append(ranges, prefix)
		}
	}
	return ranges
}
