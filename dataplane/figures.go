package dataplane

import (
	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

func newMetrics() *metrics.Metrics {
	labels := metrics.Labels{Degraded: report.DegradedReasons}
	for _, family := range ruleset.Families() {
		labels.Families = append(labels.Families, family.String())
	}
	for d := range policy.Directions {
		labels.Directions = append(labels.Directions, policy.Direction(d).String())
	}
	for r := range budget.Resources {
		labels.Resources = append(labels.Resources, r.String())
	}
	labels.Resources = append(labels.Resources, memoryOfNamespace)
	return metrics.New(labels)
}

// snapshot says for metrics what the enforcer has in the kernel, and how many policies failed.
func (e *enforcer) snapshot(failed int) *metrics.Snapshot {
	s := &metrics.Snapshot{
		Failed: failed, Quarantined: len(e.quarantine), Conflict: len(e.engines) > 0,
		Chains: map[string]int{}, Rules: map[string]int{}, Sets: map[string]int{}, Members: map[string]int{},
		Missing: map[string]int{}, Isolated: map[string]int{},
		Unjudged: e.sources.unjudged,
	}
	for pod := range e.sources.spoofing.names() {
		s.Spoofing = append(s.Spoofing, metrics.Pod{Namespace: pod.Namespace, Name: pod.Name})
	}
	for family, table := range e.tables {
		s.Chains[family.String()] = len(table.Chains)
		for _, chain := range table.Chains {
			s.Rules[family.String()] += len(chain)
		}
	}
	sets, members := e.sizes.sums()
	for _, set := range e.isolated { // has its members apart
		members[set.Family] += len(set.Members)
	}
	for _, family := range ruleset.Families() {
		s.Missing[family.String()] = len(e.extensions.lacks[family])
		s.Sets[family.String()], s.Members[family.String()] = sets[family], members[family]
	}
	for d, pods := range e.view.isolatedPods() {
		s.Isolated[policy.Direction(d).String()] = pods
	}
	return s
}

// countMoves tells metrics of a plan in which elements enter and leave sets and nothing else
// changes.
func countMoves(m *metrics.Metrics, plan *ipset.Plan) {
	count := func(changes []ipset.Change, by int) {
		for i := range changes {
			family := ruleset.IPv6
			if ruleset.IPv4.Holds(changes[i].Member.Prefix.Addr()) {
				family = ruleset.IPv4
			}
			m.MembersMoved(family.String(), by)
		}
	}
	count(plan.Add, 1)
	count(plan.Delete, -1)
}
