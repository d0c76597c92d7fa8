package dataplane

import (
	"maps"
	"slices"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// size is how many members a set has.
type size struct {
	family  ruleset.Family
	members int
}

// sizes holds the size of each set, kept up with every plan so that no caller has
// to walk over the members. Those of isolated pods count as empty: they have a
// plan of their own.
type sizes map[string]size

func sizesOf(state ipset.State) sizes {
	s := sizes{}
	for name, set := range state {
		s[name] = size{set.Family, len(set.Members)}
	}
	return s
}

// follow brings the sizes to what they are after a plan that left some sets, which
// were busy.
func (s sizes) follow(plan *ipset.Plan, busy []string) {
	for i := range plan.Create {
		s[plan.Create[i].Name] = size{family: plan.Create[i].Family}
	}
	add := func(changes []ipset.Change, by int) {
		for i := range changes {
			set := s[changes[i].Set]
			set.members += by
			s[changes[i].Set] = set
		}
	}
	add(plan.Add, 1)
	add(plan.Delete, -1)
	left := sizes{}
	for _, name := range busy {
		left[name] = s[name]
	}
	for _, name := range plan.Destroy {
		delete(s, name)
	}
	maps.Copy(s, left)
}

// sum returns the number of members of the named sets.
func (s sizes) sum(named map[string]policy.PeerSet) int {
	members := 0
	for name := range named {
		members += s[name].members
	}
	return members
}

// sums returns the number of sets and of their members.
func (s sizes) sums() (sets, members map[ruleset.Family]int) {
	sets, members = map[ruleset.Family]int{}, map[ruleset.Family]int{}
	for _, set := range s {
		sets[set.family]++
		members[set.family] += set.members
	}
	return sets, members
}

// step is one thing that a plan does.
type step struct {
	ipset.Change // its set alone: the set is made, replaced or destroyed
	removes      bool
}

func stepsOf(plan *ipset.Plan) map[step]struct{} {
	steps := map[step]struct{}{}
	add := func(removes bool, changes ...ipset.Change) {
		for _, change := range changes {
			steps[step{change, removes}] = struct{}{}
		}
	}
	for i := range plan.Create {
		add(false, ipset.Change{Set: plan.Create[i].Name})
	}
	for _, name := range slices.Concat(plan.Replace, plan.Destroy) {
		add(true, ipset.Change{Set: name})
	}
	add(false, plan.Add...)
	add(true, plan.Delete...)
	return steps
}

// foreignSets counts the sets that another program changed: those for which the plan
// made from what was read differs from the one that the model's own changes ask
// for, and those of isolated pods that were read with other members than were left.
func foreignSets(read, expected *ipset.Plan, readIsolated, leftIsolated ipset.State) int {
	names := map[string]struct{}{}
	a, b := stepsOf(read), stepsOf(expected)
	for _, pair := range [][2]map[step]struct{}{{a, b}, {b, a}} {
		for s := range pair[0] {
			if _, both := pair[1][s]; !both {
				names[s.Set] = struct{}{}
			}
		}
	}
	for name, left := range leftIsolated {
		if !maps.Equal(readIsolated[name].Members, left.Members) {
			names[name] = struct{}{}
		}
	}
	return len(names)
}

// foreignRules counts what in a table is not as it was left.
func foreignRules(read, left iptables.Table) damage {
	change := iptables.Diff(read, left)
	return damage{metrics.RepairChain: len(change.Write) + len(change.Delete), metrics.RepairHook: len(change.Rehook)}
}
