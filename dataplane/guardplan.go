package dataplane

import (
	"slices"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel"
	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// localChanges are the changes of the sets of known pods, and of other nodes' pods.
type localChanges struct {
	remove []ipset.Change
	early  []ipset.Change // all but late
	late   []ipset.Change // isolated pods, in families that are guarded already
}

// takeLocal takes the changes of the sets of known pods, and of other nodes' pods, out
// of a plan: of the wanted sets, those that open. Where the guard doesn't stand yet, pods that are known enter before it
// comes: they are never interrupted. Later a pod enters once all of its rules are in
// force. One that nothing isolates has none to wait for, nor has a pod of another node.
func takeLocal(plan *ipset.Plan, want ipset.State, stands func(ruleset.Family) bool) localChanges {
	var local localChanges
	opens := func(c ipset.Change) bool { return want[c.Set].Entering == ruleset.Opens }
	for _, c := range plan.Delete {
		if opens(c) {
			local.remove = append(local.remove, c)
		}
	}
	for _, c := range plan.Add {
		family := want[c.Set].Family
		switch {
		case !opens(c):
		case stands(family) && isIsolated(want, family, c.Member):
			local.late = append(local.late, c)
		default:
			local.early = append(local.early, c)
		}
	}
	plan.Delete, plan.Add = slices.DeleteFunc(plan.Delete, opens), slices.DeleteFunc(plan.Add, opens)
	return local
}

// entering returns what enters the sets of known pods once rules are written: nothing in a
// family whose rules are not in force.
func (l *localChanges) entering(broken kernel.FamilyErrors) []ipset.Change {
	return slices.DeleteFunc(slices.Clone(l.late), func(c ipset.Change) bool {
		family, _ := setFamily(c.Set, compile.LocalSet)
		return broken[family] != nil
	})
}

// isIsolated reports whether an address is isolated in either direction.
func isIsolated(want ipset.State, family ruleset.Family, addr ruleset.Member) bool {
	for d := range policy.Directions {
		if _, is := want[compile.IsolatedSet(family, policy.Direction(d))].Members[addr]; is {
			return true
		}
	}
	return false
}

// setFamily returns the family of a set that has the name.
func setFamily(set string, name func(ruleset.Family) string) (ruleset.Family, bool) {
	for _, family := range ruleset.Families() {
		if set == name(family) {
			return family, true
		}
	}
	return 0, false
}

// guardStands reports whether the rules that a family has hold the guard. Where they can't
// be read, they may.
func (e *enforcer) guardStands(family ruleset.Family) bool {
	if e.broken[family] != nil {
		return true
	}
	_, stands := e.tables[family].Chains[compile.GuardChain]
	return stands
}

// findsGuard reports whether an agent before this one has left a guard in the
// kernel. Where that can't be read, it may have.
func (e *enforcer) findsGuard() bool {
	sets, err := ipset.Open(compile.SetPrefix)
	if err != nil {
		return true
	}
	defer sets.Close()
	have, err := sets.Sizes() // without the members, of which there may be many
	return err != nil || slices.ContainsFunc(ruleset.Families(), func(family ruleset.Family) bool {
		_, found := have[compile.LocalSet(family)]
		return found
	})
}
