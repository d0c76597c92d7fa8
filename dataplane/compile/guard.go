package compile

import (
	"net/netip"
	"slices"

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
	// addresses of PodCIDRs are closed.
	Local []netip.Addr
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
	if len(c.guarded()) == 0 {
		return nil
	}
	members := ruleset.Members{}
	for _, addr := range c.guard.Local {
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
	name, side := LocalSet(c.family), subjectSide(d)
	var rules []ruleset.Rule
	for _, prefix := range c.guarded() {
		rules = append(rules, ruleset.Rule{
			Match: []ruleset.Match{
				ruleset.PrefixMatch(side, prefix),
				ruleset.AbsentMatch{Set: name, Side: side},
			},
			Action: ruleset.Jump,
			Target: GuardChain,
		})
	}
	return rules
}

// guardChain drops, so that the drop's counter says how many packets came too
// early. The node talks to itself by the loopback interface, from its address
// among the pods' too.
func (c *compiler) guardChain() {
	if len(c.guarded()) == 0 {
		return
	}
	name := LocalSet(c.family)
	c.sets[name] = ruleset.Set{Name: name, Type: ruleset.HashIP, Family: c.family}
	loopback := ruleset.InterfaceMatch{Side: ruleset.Source, Name: "lo"}
	c.addChain(GuardChain, ruleset.Rule{Match: []ruleset.Match{loopback}, Action: ruleset.Return}, drop)
}
