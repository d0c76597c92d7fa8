package dataplane

import (
	"maps"
	"net/netip"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/ipset"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/dataplane/selector"
)

// wantedSets joins what the families follow, by the name of the set.
func wantedSets(outputs []compile.Output) map[string]policy.PeerSet {
	wanted := map[string]policy.PeerSet{}
	for i := range outputs {
		maps.Copy(wanted, outputs[i].Peers)
	}
	return wanted
}

// declaredSets returns every set of the outputs, with its members where these
// are fixed.
func declaredSets(outputs []compile.Output) ipset.State {
	declared := ipset.State{}
	for i := range outputs {
		for _, set := range outputs[i].Ruleset.Sets {
			declared[set.Name] = set
		}
	}
	return declared
}

// fullSets returns every set with all its members, those of isolated pods left
// out: they have an order of their own.
func fullSets(outputs []compile.Output, index *selector.Index) ipset.State {
	full := declaredSets(outputs)
	for name := range wantedSets(outputs) {
		set := full[name]
		set.Members = ruleset.Members{}
		index.Elements(name, func(element policy.Element) {
			if set.Family.Holds(element.Addr) {
				set.Members[memberOf(element)] = struct{}{}
			}
		})
		full[name] = set
	}
	return full
}

// incrementalPlan works out what has to change from the sets that are known to
// exist and the changes that the index has counted since it was asked last.
func incrementalPlan(known, declared ipset.State, index *selector.Index) ipset.Plan {
	var plan ipset.Plan
	for name, set := range declared {
		if _, exists := known[name]; !exists {
			fresh := ipset.Diff(nil, ipset.State{name: set})
			plan.Append(fresh)
		}
	}
	for name := range known {
		if _, keep := declared[name]; !keep {
			plan.Destroy = append(plan.Destroy, name)
		}
	}
	followMembers(&plan, declared, index)
	return plan
}

// followMembers adds the changes that the index has counted since it was asked last.
func followMembers(plan *ipset.Plan, declared ipset.State, index *selector.Index) {
	index.Changes(func(name string, element policy.Element, member bool) {
		set := declared[name]
		if !set.Family.Holds(element.Addr) {
			return
		}
		change := ipset.Change{Set: name, Type: set.Type, Member: memberOf(element)}
		if member {
			plan.Add = append(plan.Add, change)
		} else {
			plan.Delete = append(plan.Delete, change)
		}
	})
}

func memberOf(element policy.Element) ruleset.Member {
	return ruleset.Member{
		Prefix:   netip.PrefixFrom(element.Addr, element.Addr.BitLen()),
		Protocol: uint8(element.Protocol),
		Port:     element.Port,
	}
}

// isolatedState returns the sets of isolated pods, of cut connections and, where
// there is a guard, of all known pods and of those of other nodes, and where there are tunnels,
// of where they lead, with their members. Their order of writes follows from Set.Entering.
func isolatedState(outputs []compile.Output) ipset.State {
	declared, state := declaredSets(outputs), ipset.State{}
	put := func(name string, members ruleset.Members) {
		set := declared[name]
		set.Members = members
		state[name] = set
	}
	for i := range outputs {
		family := outputs[i].Ruleset.Family
		for d, members := range outputs[i].Isolated {
			put(compile.IsolatedSet(family, policy.Direction(d)), members)
		}
		if outputs[i].Local != nil {
			put(compile.LocalSet(family), outputs[i].Local)
			put(compile.ForeignSet(family), outputs[i].Foreign)
		}
		if outputs[i].TunnelEnds != nil {
			put(compile.TunnelSet(family), outputs[i].TunnelEnds)
		}
		for cause, cuts := range outputs[i].Cuts {
			if cuts != nil {
				put(compile.CutSet(family, compile.CutCause(cause)), cuts)
			}
		}
	}
	return state
}

// takeIsolated returns the sets of isolated pods and of cut connections and leaves
// them in the state without members, as they are declared.
func takeIsolated(state ipset.State, outputs []compile.Output) ipset.State {
	taken := ipset.State{}
	names := isolatedState(outputs)
	for _, family := range ruleset.Families() {
		for cause := range compile.CutCauses {
			names[compile.CutSet(family, cause)] = ruleset.Set{} // also one that isn't needed any more
		}
	}
	for name := range names {
		if set, ok := state[name]; ok {
			taken[name] = set
			set.Members = nil
			state[name] = set
		}
	}
	return taken
}
