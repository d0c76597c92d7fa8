package dataplane

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// view is a View as it is enforced: with earlier versions of policies that wait, and with
// those pods closed whose policies are over budget.
type view struct {
	node.View

	// waiting are policies of which not the present version is enforced.
	waiting map[types.UID]*policy.Policy

	// expensive says of policies that are over budget why.
	expensive map[types.UID]error

	// refused says why policies of these are in quarantine or over budget.
	refused map[types.UID]error

	// damaged are the families whose rules are not those that were left.
	damaged []ruleset.Family
}

// isolatedPods counts the isolated pods of each direction. There are none in a nil
// view.
func (v *view) isolatedPods() [policy.Directions]int {
	var pods [policy.Directions]int
	if v == nil {
		return pods
	}
	for i := range v.Endpoints {
		for d := range pods {
			if v.Endpoints[i].Isolated(policy.Direction(d)) {
				pods[d]++
			}
		}
	}
	return pods
}

// present returns the policies that select a pod of the node as they are written now.
func (v *view) present() []*policy.Policy {
	if len(v.waiting) == 0 {
		return v.Selecting
	}
	present := slices.DeleteFunc(slices.Clone(v.Selecting), func(p *policy.Policy) bool { return v.waiting[p.UID] != nil })
	present = append(present, policy.Selecting(v.Local, slices.Collect(maps.Values(v.waiting)))...)
	slices.SortFunc(present, func(a, b *policy.Policy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return present
}

// outcomeOf says what became of a sync of the view, which may be nil.
func outcomeOf(backend iptables.Backend, v *view, err error, degraded []report.Degradation) *report.Outcome {
	o := &report.Outcome{Backend: string(backend), Err: err, Degraded: degraded}
	if v != nil {
		o.Known, o.Selecting, o.Refused, o.Seen = true, v.present(), v.refused, v.Seen
		if err != nil {
			o.Concerned, o.Damaged = v.concerned(), v.damaged
		}
	}
	return o
}
