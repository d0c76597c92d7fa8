package dataplane

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// readTables reads the rules of each family. A table that iptables can't print is known
// by its imprint alone. Where even that fails, the family is left as it is.
func (e *enforcer) readTables(ctx context.Context) {
	settled, tables := e.settled, map[ruleset.Family]iptables.Table{}
	e.settled = false // planSets has compared already
	e.unread = kernel.FamilyErrors{}
	for family, runner := range e.runners {
		table, counters, err := runner.ReadCounting(ctx)
		if err == nil {
			e.metrics.GuardDropped(family.String(), counters.Packets(compile.GuardChain))
			e.metrics.Spoofed(family.String(), counters.Packets(compile.ForgedChain))
			e.sources.spoofing.read(family, counters.ByInterface(compile.ForgedChain), e.sources.written)
		}
		if iptables.IsUnreadable(err) {
			e.unread[family] = err
			if e.inspection.observer != nil {
				table, err = e.unreadTable(family)
			}
		}
		if err != nil {
			e.broken[family] = err
			continue
		}
		tables[family] = table
		if settled {
			e.damage.add(foreignRules(table, e.tables[family]), e.metrics)
		}
	}
	e.tables = tables
}

// unreadTable says what is known of a table that iptables can't print.
func (e *enforcer) unreadTable(family ruleset.Family) (iptables.Table, error) {
	i := &e.inspection
	chains, err := i.observer.Chains()
	if err != nil {
		return iptables.Table{}, err
	}
	now, err := i.observer.Rules(iptables.Rules{})
	if err != nil {
		return iptables.Table{}, err
	}
	return iptables.Unread(e.runners[family].Own(chains), now, i.left, e.backend, family, e.tables[family]), nil
}

// proveUnread writes all rules of a table that can't be read again, and compares what
// stands for them before and after. What such a table holds can't be read back, and what
// another program changed beside the first writing would be taken for Moat's own for good.
func (e *enforcer) proveUnread(ctx context.Context, family ruleset.Family) error {
	i, runner := &e.inspection, e.runners[family]
	before, err := i.observer.Rules(iptables.Rules{})
	if err != nil {
		return err
	}
	chains, err := i.observer.Chains()
	if err != nil {
		return err
	}
	nothing := iptables.Unread(runner.Own(chains), iptables.Rules{}, iptables.Rules{}, e.backend, family, iptables.Table{})
	if err := runner.ApplyUnread(ctx, iptables.Diff(nothing, e.desired[family]), i.observer); err != nil {
		return err
	}
	now, err := i.observer.Rules(iptables.Rules{})
	if err != nil {
		return err
	}
	if !now.Keep(before, e.backend, family, compile.ChainPrefix) {
		return errors.New("another program changed rules while they were written, and iptables can't read them back")
	}
	i.proved(now, e.backend, family)
	return nil
}

// mangle is the table that Moat filters in.
const mangle = "mangle"

// concerned returns the families of the addresses of the pods that each policy
// isolates.
func (v *view) concerned() map[types.UID][]ruleset.Family {
	concerned := map[types.UID][]ruleset.Family{}
	note := func(p *policy.Policy, pod *policy.Pod) {
		for _, family := range ruleset.Families() {
			holds := slices.ContainsFunc(pod.Addrs, family.Holds)
			if holds && !slices.Contains(concerned[p.UID], family) {
				concerned[p.UID] = append(concerned[p.UID], family)
			}
		}
	}
	for i := range v.Endpoints {
		endpoint := &v.Endpoints[i]
		for _, isolating := range endpoint.Isolating {
			for _, p := range isolating {
				note(p, endpoint.Pod)
			}
		}
	}
	return concerned
}

// standing says for the log what the kernel has after a sync that failed.
func (v *view) standing() string {
	if v == nil || len(v.damaged) == 0 {
		return "the last good ones stay"
	}
	return fmt.Sprintf("those of %v are damaged or not there, and isolated pods may be open", v.damaged)
}

// standing says of the families whose rules are not in force what the kernel has of
// them instead: the rules that were last known to be right, or others.
func (e *enforcer) standing(err error) error {
	if err == nil {
		return nil
	}
	damaged := e.damagedFamilies()
	if e.view != nil {
		e.view.damaged = damaged
	}
	if len(damaged) == 0 {
		return err
	}
	names := make([]string, len(damaged))
	for i, family := range damaged {
		names[i] = family.String()
	}
	state := "damaged: isolated pods may be open"
	if !e.inspection.left.Taken() {
		state = "not in the kernel: isolated pods are open"
	}
	return fmt.Errorf("rules of %s are %s: %w", strings.Join(names, " and "), state, err)
}

// damagedFamilies returns those whose tables hold other rules of Moat's than were last
// known to be right, or none at all where nothing was known yet. It says nothing of what
// the kernel doesn't tell.
func (e *enforcer) damagedFamilies() []ruleset.Family {
	i := &e.inspection
	if i.observer == nil || e.runners == nil {
		return nil
	}
	now, err := i.observer.Rules(iptables.Rules{})
	if err != nil {
		return nil
	}
	chains, err := i.observer.Chains()
	if err != nil {
		return nil
	}
	var damaged []ruleset.Family
	for _, family := range ruleset.Families() {
		switch {
		case e.runners[family] == nil:
		case i.left.Taken() && !now.Keep(i.left, e.backend, family, compile.ChainPrefix),
			!i.left.Taken() && !slices.Contains(chains, e.chain(family, compile.ForwardChain)):
			damaged = append(damaged, family)
		}
	}
	return damaged
}

// chain names a chain of Moat's as the observer does.
func (e *enforcer) chain(family ruleset.Family, name string) iptables.Chain {
	return iptables.Chain{Backend: e.backend, Family: family.String(), Table: mangle, Name: name}
}
