package dataplane

import (
	"context"
	"errors"
	"net/netip"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// keepRanges makes an agent guard the ranges that one before it has left in the kernel,
// where its Node says nothing of ranges.
func (a *Agent) keepRanges(ctx context.Context) {
	if _, cidrs := a.model.Guarded(); len(cidrs) > 0 {
		return
	}
	ranges, err := a.enforcer.guardedRanges(ctx)
	if err != nil {
		a.log.Error(err, "The Node has no podCIDRs, and the ranges that were guarded before can't be read")
	}
	if len(ranges) > 0 {
		a.log.Info("The Node has no podCIDRs; the ranges stay guarded that were before", "ranges", ranges)
		a.model.GuardRanges(ranges)
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
