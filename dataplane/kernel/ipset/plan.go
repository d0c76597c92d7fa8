package ipset

import (
	"cmp"
	"maps"
	"slices"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// State is the sets of one family by name.
type State map[string]ruleset.Set

// Change is one element that enters or leaves a set.
type Change struct {
	Set    string
	Type   ruleset.SetType
	Member ruleset.Member
}

// Plan takes the kernel's sets from one state to another.
type Plan struct {
	Replace []string      // sets that exist with the wrong type
	Create  []ruleset.Set // without their members, which are in Add
	Add     []Change
	Delete  []Change
	Destroy []string
}

// Diff compares two states completely.
func Diff(have, want State) Plan {
	var p Plan
	for _, name := range slices.Sorted(maps.Keys(want)) {
		set := want[name]
		old, exists := have[name]
		if exists && (old.Type != set.Type || old.Family != set.Family) {
			p.Replace = append(p.Replace, name)
			exists = false
		}
		if !exists {
			p.Create = append(p.Create, set)
			old.Members = nil
		}
		p.Add = append(p.Add, missing(set, set.Members, old.Members)...)
		p.Delete = append(p.Delete, missing(set, old.Members, set.Members)...)
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		if _, keep := want[name]; !keep {
			p.Destroy = append(p.Destroy, name)
		}
	}
	return p
}

// missing lists the members of a that b lacks, in a fixed order.
func missing(set ruleset.Set, a, b ruleset.Members) []Change {
	var changes []Change
	for member := range a {
		if _, ok := b[member]; !ok {
			changes = append(changes, Change{set.Name, set.Type, member})
		}
	}
	slices.SortFunc(changes, func(x, y Change) int {
		return cmp.Or(
			x.Member.Prefix.Addr().Compare(y.Member.Prefix.Addr()),
			cmp.Compare(x.Member.Prefix.Bits(), y.Member.Prefix.Bits()),
			cmp.Compare(x.Member.Protocol, y.Member.Protocol),
			cmp.Compare(x.Member.Port, y.Member.Port),
			x.Member.Server.Compare(y.Member.Server),
		)
	})
	return changes
}

// Append adds the steps of another plan.
func (p *Plan) Append(other Plan) {
	p.Replace = append(p.Replace, other.Replace...)
	p.Create = append(p.Create, other.Create...)
	p.Add = append(p.Add, other.Add...)
	p.Delete = append(p.Delete, other.Delete...)
	p.Destroy = append(p.Destroy, other.Destroy...)
}
