package dataplane

import (
	"maps"
	"slices"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
)

// refusals are the elements that should be in sets and that the kernel doesn't take, each
// with its words. They are left out, and everything else goes on: an element that ipset
// refuses is an address that no packet has. The zero value is empty.
type refusals map[ipset.Change]error

// leaveOut notes an element that the kernel doesn't take.
func (e *enforcer) leaveOut(change ipset.Change, err error) {
	if e.refusals == nil {
		e.refusals = refusals{}
	}
	e.refusals[change] = err
}

// outOfPlan returns the plan as the kernel has followed it. Elements that left are
// forgotten.
func (r refusals) outOfPlan(plan *ipset.Plan) *ipset.Plan {
	if len(r) == 0 {
		return plan
	}
	refused := func(change ipset.Change) bool { return r[change] != nil }
	followed := *plan
	followed.Add = slices.DeleteFunc(slices.Clone(plan.Add), refused)
	followed.Delete = slices.DeleteFunc(slices.Clone(plan.Delete), refused)
	return &followed
}

// outOfSets returns the state without the elements that the kernel doesn't take.
func (r refusals) outOfSets(state ipset.State) ipset.State {
	if len(r) == 0 {
		return state
	}
	held := maps.Clone(state)
	for change := range r {
		set := held[change.Set]
		if _, wanted := set.Members[change.Member]; wanted {
			set.Members = maps.Clone(set.Members)
			delete(set.Members, change.Member)
			held[change.Set] = set
		}
	}
	return held
}

// forget drops what the plan took out of its set, with its set or alone.
func (r refusals) forget(plan *ipset.Plan) {
	for _, change := range plan.Delete {
		delete(r, change)
	}
	maps.DeleteFunc(r, func(change ipset.Change, _ error) bool { return slices.Contains(plan.Destroy, change.Set) })
}

// sayRefused logs each element that the kernel doesn't take once, and counts them.
func (a *Agent) sayRefused() {
	now := a.enforcer.refusals
	for change, err := range now {
		if a.said.elements[change] == nil {
			a.log.Error(err, "The kernel refuses an element of a set; it is left out, and everything else is in force",
				"set", change.Set, "element", change.Member.Prefix.Addr().String())
		}
	}
	a.said.elements = maps.Clone(now)
	a.enforcer.metrics.Refused(len(now))
}
