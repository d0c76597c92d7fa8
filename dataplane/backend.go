package dataplane

import (
	"context"
	"fmt"
	"slices"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// open finds the node's backend and its programs, and looks again whenever the
// kernel is to be read: to look takes some milliseconds.
func (e *enforcer) open(ctx context.Context) error {
	if e.runners == nil {
		return e.use(ctx, func(ctx context.Context) iptables.Backend { return iptables.Detect(ctx, compile.ChainPrefix) })
	}
	if e.trusted {
		return nil
	}
	return e.use(ctx, func(ctx context.Context) iptables.Backend { return iptables.DetectChange(ctx, e.backend) })
}

// openSets opens the connection for sets, once.
func (e *enforcer) openSets() error {
	if e.sets != nil {
		return nil
	}
	sets, err := ipset.Open(compile.SetPrefix)
	if err != nil {
		return err
	}
	sets.OnRequest, sets.OnRefused = e.metrics.Requested, e.leaveOut
	e.sets = sets
	return nil
}

// use takes the requested backend, or the one that detect finds. Whatever Moat has
// in the other one goes as soon as this one's rules are in force: an agent before
// this one may have used it, and its rules would go on dropping what they dropped.
func (e *enforcer) use(ctx context.Context, detect func(context.Context) iptables.Backend) error {
	backend := e.requested
	if backend == "" {
		backend = detect(ctx)
	}
	families := e.families()
	if e.runners != nil && backend == e.backend && e.writes(families) {
		return nil
	}
	runners, others := map[ruleset.Family]*iptables.Runner{}, map[ruleset.Family]*iptables.Runner{}
	for _, family := range families {
		runner, err := iptables.NewRunner(backend, family, compile.ChainPrefix)
		if err != nil {
			return err
		}
		runner.OnRestore, runner.Timeout = e.restored, e.limit
		runners[family] = runner
		// Without its programs it is unknown what the other one holds.
		if other, err := iptables.NewRunner(backend.Other(), family, compile.ChainPrefix); err == nil {
			other.OnRestore = e.restored
			others[family] = other
		}
	}
	e.settled, e.outputs = false, nil
	e.backend, e.runners, e.others = backend, runners, others
	e.waker.open(backend)
	return nil
}

// restored notes a run of iptables-restore.
func (e *enforcer) restored(err error) {
	e.inspection.wrote()
	e.metrics.Restored(err)
	if iptables.IsLock(err) {
		e.metrics.LockFailed()
	}
}

// leaveOther takes a family's rules of Moat's out of the other backend.
func (e *enforcer) leaveOther(ctx context.Context, family ruleset.Family) error {
	other := e.others[family]
	if other == nil {
		return nil
	}
	_, err := other.Remove(ctx)
	// A table that iptables can't print is none that this node's programs work with.
	if err != nil && !iptables.IsUnreadable(err) {
		return fmt.Errorf("removing Moat's rules of %s: %w", e.backend.Other(), err)
	}
	delete(e.others, family)
	return nil
}

// writes reports whether rules of just these families are written.
func (e *enforcer) writes(families []ruleset.Family) bool {
	return len(e.runners) == len(families) &&
		!slices.ContainsFunc(families, func(family ruleset.Family) bool { return e.runners[family] == nil })
}
