package budget

import (
	"cmp"
	"slices"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Pods counts pods of the cluster.
type Pods interface {
	// Count returns how many addresses the selected pods have, and how many pairs of an
	// address with a named port. It may stop when there are more addresses than most.
	Count(selected *policy.PodPeer, most int) (addresses, ports int)
}

// families is the number of IP families: Moat makes sets and rules of both.
var families = len(ruleset.Families())

// dedupeMost bounds the selectors that a Ledger remembers of a policy. In the counts of a
// namespace and the node, selectors share their sets with equal ones of other policies. Those of
// a policy with more selectors are counted in full.
const dedupeMost = 256

// cost is what one policy becomes, as if there were no other.
type cost struct {
	prefixes int
	rules    [policy.Directions]int // in the chain of each pod that the policy isolates
	named    bool                   // the rules of ingress differ with the pods' named ports
	blocks   int                    // sets of prefixes
	sets     int                    // all
	elements int

	// selectors are each of the policy's once; nil where there are more than dedupeMost.
	selectors []selector
}

// selector is one selector of pods with the sets that follow it in each family.
type selector struct {
	key       string
	pods      *policy.PodPeer
	plain     int // 1 where a set holds the addresses
	names     int // sets that hold one named port of each pod
	addresses int
	ports     int
}

// elements is the number of elements of all sets that follow the selector. A pod is in at most as
// many sets of named ports as it has such ports.
func (s *selector) elements() int {
	return s.plain*s.addresses + min(s.names*s.addresses, s.ports)
}

func (s *selector) sets() int { return (s.plain + s.names) * families }

var everyPod = policy.EveryPod()

// costOf counts what a policy becomes. Elements are counted up to a little more than most,
// and not at all where there are more sets than mostSets.
func costOf(p *policy.Policy, pods Pods, mostSets, most int) *cost {
	c, all := &cost{}, &selectors{at: map[string]int{}}
	for d := range policy.Direction(policy.Directions) {
		if !p.Isolates[d] {
			continue
		}
		for i := range p.Rules[d] {
			c.add(d, &p.Rules[d][i], all)
		}
	}
	c.sets = c.blocks
	for i := range all.list {
		c.sets += all.list[i].sets()
	}
	if c.sets > mostSets {
		return c
	}
	for i := 0; i < len(all.list) && c.elements <= most; i++ {
		s := &all.list[i]
		s.addresses, s.ports = pods.Count(s.pods, most)
		c.elements += s.elements()
	}
	if len(all.list) <= dedupeMost {
		c.selectors = all.list
	}
	return c
}

// add counts a rule.
func (c *cost) add(d policy.Direction, r *policy.Rule, all *selectors) {
	groups, names := portGroups(d, r), 0
	for i := range r.Ports {
		if r.Ports[i].Name != "" && d == policy.Egress {
			names++
		}
		c.named = c.named || r.Ports[i].Name != "" && d == policy.Ingress
	}
	if groups+names == 0 {
		return // it allows nothing, and compile declares no set for it
	}
	peers := 1
	if !r.AnyPeer {
		peers = c.addPeers(r, all, min(groups, 1), names)
	} else if names > 0 {
		all.follow(&everyPod, 0, names)
	}
	c.rules[d] += peers * (groups + names)
}

// addPeers counts the peers of a rule and returns how many alternatives they are.
func (c *cost) addPeers(r *policy.Rule, all *selectors, plain, names int) int {
	alternatives := 0
	for i := range r.Peers {
		if pods := r.Peers[i].Pods; pods != nil {
			alternatives++
			all.follow(pods, plain, names)
		}
	}
	blocks := 0
	for _, family := range ruleset.Families() {
		n := prefixes(family, r.Peers)
		blocks = max(blocks, min(n, 1)) // a family has one alternative for all of its blocks
		if n > 1 {                      // a single prefix needs no set
			c.prefixes += n
			c.blocks++
		}
	}
	if blocks > 0 && names > 0 {
		all.follow(&everyPod, 0, names)
	}
	return alternatives + blocks
}

// selectors are the selectors of one policy, each once.
type selectors struct {
	list []selector
	at   map[string]int // by key
}

func (ss *selectors) follow(pods *policy.PodPeer, plain, names int) {
	key := pods.Key()
	at, known := ss.at[key]
	if !known {
		at = len(ss.list)
		ss.at[key] = at
		ss.list = append(ss.list, selector{key: key, pods: pods})
	}
	ss.list[at].plain = max(ss.list[at].plain, plain)
	ss.list[at].names += names
}

// portGroups returns the most groups of ports that a rule makes, where a group fits into one
// match. Named ports of egress aren't among them. Ranges that touch are one.
func portGroups(d policy.Direction, r *policy.Rule) int {
	if r.AnyPort {
		return 1
	}
	ranges, named := map[policy.Protocol][]ruleset.PortRange{}, map[policy.Protocol]int{}
	for i := range r.Ports {
		port := &r.Ports[i]
		switch {
		case port.Name == "":
			ranges[port.Protocol] = append(ranges[port.Protocol], ruleset.PortRange{First: port.First, Last: port.Last})
		case d == policy.Ingress:
			named[port.Protocol]++
		}
	}
	groups := 0
	for _, protocol := range []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP} {
		groups += groupsOf(slotsOf(ranges[protocol]) + named[protocol])
	}
	return groups
}

// groupsOf returns the most groups that ranges of so many slots make. In each group but the last,
// one slot may stay free, where the next range needs two.
func groupsOf(slots int) int {
	if slots <= ruleset.MaxPortSlots {
		return min(slots, 1)
	}
	most := ruleset.MaxPortSlots - 1
	return (slots + most - 1) / most
}

// slotsOf returns how many slots ranges take after those that overlap or touch are joined.
func slotsOf(ranges []ruleset.PortRange) int {
	slices.SortFunc(ranges, func(a, b ruleset.PortRange) int { return cmp.Compare(a.First, b.First) })
	slots := 0
	for i := 0; i < len(ranges); {
		joined := ranges[i]
		for i++; i < len(ranges) && int(ranges[i].First) <= int(joined.Last)+1; i++ {
			joined.Last = max(joined.Last, ranges[i].Last)
		}
		slots += joined.Slots()
	}
	return slots
}
