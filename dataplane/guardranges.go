package dataplane

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// keepRanges makes an agent guard the ranges that one before it has left in the kernel,
// where its Node says nothing of ranges.
func (a *Agent) keepRanges(ctx context.Context) {
	if _, cidrs := a.model.guarded(); len(cidrs) > 0 {
		return
	}
	ranges, err := a.enforcer.guardedRanges(ctx)
	if err != nil {
		a.log.Error(err, "The Node has no podCIDRs, and the ranges that were guarded before can't be read")
	}
	if len(ranges) > 0 {
		a.log.Info("The Node has no podCIDRs; the ranges stay guarded that were before", "ranges", ranges)
		a.model.guardRanges(ranges)
	}
}

// guardedRanges reads the ranges that the kernel's rules guard.
func (e *enforcer) guardedRanges(ctx context.Context) ([]netip.Prefix, error) {
	if err := e.open(ctx); err != nil {
		return nil, err
	}
	var ranges []netip.Prefix
	var errs []error
	for _, family := range ruleset.Families() {
		if e.runners[family] == nil {
			continue
		}
		table, err := e.runners[family].Read(ctx)
		errs = append(errs, err)
		ranges = append(ranges, compile.GuardedRanges(table.Chains[compile.ForwardChain])...)
	}
	return ranges, errors.Join(errs...)
}

// unguarded is what the guard doesn't cover, at one revision of the model.
type unguarded struct {
	revision uint64
	text     string // empty for nothing
}

// outsideRanges names a pod of this node that has an address outside of the guarded
// ranges, and says how many there are. It is empty where there is none.
func (m *model) outsideRanges() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.outside.revision == m.revision {
		return m.outside.text
	}
	m.outside = unguarded{revision: m.revision}
	var first *policy.Pod
	var at netip.Addr
	pods := 0
	for _, pod := range m.local {
		i := slices.IndexFunc(pod.Addrs, func(addr netip.Addr) bool { return !m.guard.covers(addr) })
		if i < 0 {
			continue
		}
		pods++
		if first == nil || pod.Key().String() < first.Key().String() {
			first, at = pod, pod.Addrs[i]
		}
	}
	if pods > 0 {
		m.outside.text = fmt.Sprintf("%d of %d pods have an address outside of the Node's podCIDRs, pod %s for one (%s)", pods, len(m.local), first.Key(), at)
	}
	return m.outside.text
}
