package compile

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Guard closes addresses of the node's pods until their rules are in force: a pod
// has its address before the agent can know whose it is.
//
// The zero value guards nothing.
type Guard struct {
	// PodCIDRs are the ranges that the node's pods get their addresses from.
	PodCIDRs []netip.Prefix

	// Local are the addresses of the node's known pods, isolated or not. All other
	// addresses of PodCIDRs are closed, but for Foreign behind Uplinks.
	Local []netip.Addr

	// Foreign are addresses of PodCIDRs that pods of other nodes have, and none of this.
	Foreign []netip.Addr

	// Uplinks are the interfaces that lead to Foreign, and to no pod of this node. An
	// address of Foreign behind another interface is closed: there it is that of a new pod
	// of this node, which may have it sooner than the API can say so.
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

// guardJumps sends what comes from (Egress) or goes to (Ingress) an address that
// might be a pod's of this node, but of none that is known, to the guard chain.
// They stand behind neighbour discovery: an address that was looked for in vain
// would stay unknown for a second after its pod is programmed.
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

// spareChain is the chain that spares pods of other nodes in the direction's subject. Each
// direction has its own: a packet from such a pod may go to an address that is closed.
func spareChain(d policy.Direction) string {
	if d == policy.Egress {
		return GuardFromChain
	}
	return GuardToChain
}

// guardChain drops, so that the drop's counter says how many packets came too
// early. The node talks to itself by the loopback interface, from its address
// among the pods' too.
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

// spare lets pass what comes from (Egress) or goes to (Ingress) a pod of another node, by
// an interface that leads to no pod of this one.
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

// GuardedRanges returns the ranges that rules of ForwardChain guard, as iptables-save
// prints them: those of Guard.PodCIDRs that an agent wrote.
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
