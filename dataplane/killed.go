package dataplane

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/pacing"
	"github.com/moat-dev/moat/dataplane/policy"
)

// calmPart is the part of the time limit of iptables-restore within which it must end for
// the node to count as calm.
const calmPart = 3

// attempts is what the enforcer knows of syncs and of policies that failed.
type attempts struct {
	begun    time.Time // the present sync
	last     inForce
	debts    pacing.Debts
	searchBy int           // how many suspects the next search lets go at a time; zero: all
	limit    time.Duration // of one run of iptables-restore
	slowest  time.Duration // run of it since this was last made zero
	room     int           // sets that the kernel takes of all programs together
}

func newAttempts() attempts {
	return attempts{debts: pacing.NewDebts(pacing.DebtShare, pacing.DebtFree), limit: iptables.RunTimeout, room: mostSets}
}

// findKillers is findFaults for a pass in which iptables-restore was killed, by its time
// limit or for lack of memory. That is no word about the rules: perhaps the node is busy.
// So no pod is closed before the node has shown that it is calm, and a policy is at fault
// only if the same pass without it succeeds twice within a third of the limit.
func (e *enforcer) findKillers(ctx context.Context, m *node.Model, err error) error {
	before, suspects := e.quarantine, e.byWeight()
	if len(suspects) == 0 || !e.calm(ctx, m) {
		return err
	}
	// One policy with most of the rules is the usual case: no other is closed for it.
	heaviest := suspects[:1]
	if e.succeedsTwice(ctx, m, before.with(heaviest, err, time.Now())) {
		e.refuse(e.quarantine, heaviest[0], err, time.Since(e.begun))
		return e.passWith(ctx, m, e.quarantine)
	}
	if len(suspects) > 1 && e.succeedsTwice(ctx, m, before.with(suspects, err, time.Now())) {
		e.searchBy = (len(suspects) + 1) / 2
		slices.Reverse(suspects)
		return e.letGo(ctx, m, suspects)
	}
	e.hold(before)
	return err
}

// mayBeFault reports whether a pass may have failed for the policies that it let go.
func mayBeFault(err error) bool { return isRefusal(err) || iptables.IsKilled(err) }

// searchSlower makes the next search let go fewer at a time than those for which
// iptables-restore was killed: a search may be over before it comes to them again.
func (e *enforcer) searchSlower(most int, err error) {
	if iptables.IsKilled(err) {
		e.searchBy = most / 2
	}
}

// byWeight returns the suspects, those with the most rules to be written first. Policies that
// isolate the same pods have the same chains: of these the first is one that wasn't in force.
func (e *enforcer) byWeight() []policyID {
	weights, inForce := e.weights(), e.last.policies()
	ids := e.suspects()
	slices.SortStableFunc(ids, func(a, b policyID) int {
		return cmp.Or(cmp.Compare(weights[b], weights[a]), compareBools(inForce[a], inForce[b]))
	})
	return ids
}

// compareBools is cmp.Compare with false before true.
func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// oldestFirst sorts policies that were in force to the front: of several that isolate the
// same pods, all but the last to be let go pass.
func (e *enforcer) oldestFirst(ids []policyID) {
	inForce := e.last.policies()
	slices.SortStableFunc(ids, func(a, b policyID) int { return compareBools(inForce[b], inForce[a]) })
}

// weights counts for each policy outside of quarantine the rules of the chains that hold
// its rules and that the kernel lacks.
func (e *enforcer) weights() map[policyID]int {
	weights := map[policyID]int{}
	for i := range e.outputs {
		family := e.outputs[i].Ruleset.Family
		change := iptables.Diff(e.tables[family], e.desired[family])
		for _, chain := range change.Write {
			for _, p := range e.outputs[i].Origins[chain] {
				if p != policy.AllowsNothing {
					weights[idOf(p)] += len(e.desired[family].Chains[chain])
				}
			}
		}
	}
	return weights
}

// calm reports whether iptables-restore rewrites what the kernel has within a third
// of its limit. That changes nothing.
func (e *enforcer) calm(ctx context.Context, m *node.Model) bool {
	e.progress()
	calm := true
	e.meanwhile(m, func() {
		for family, runner := range e.runners {
			begun := time.Now()
			calm = calm && runner.Apply(ctx, iptables.Rewrite(e.tables[family])) == nil && time.Since(begun) <= e.limit/calmPart
		}
	})
	if e.overtaken {
		e.trusted, e.settled = false, false
	}
	return calm
}

// succeedsTwice makes a pass with the given quarantine, and writes its rules again. It
// reports whether both succeeded within a third of the limit.
func (e *enforcer) succeedsTwice(ctx context.Context, m *node.Model, q quarantine) bool {
	e.slowest = 0
	if e.passWith(ctx, m, q) != nil || e.slowest > e.limit/calmPart {
		return false
	}
	return e.calm(ctx, m)
}

// refuse notes that a policy, which the quarantine holds, was tried for so long and failed.
func (e *enforcer) refuse(q quarantine, id policyID, err error, took time.Duration) {
	now := time.Now()
	e.debts.Charge(e.view.namespaceOf(id), took, now)
	q.refused(id, err, now)
	e.stricter = true
}

// namespaceOf returns the namespace of one of the view's policies.
func (v *view) namespaceOf(id policyID) string {
	for _, p := range v.Selecting {
		if idOf(p) == id {
			return p.Namespace
		}
	}
	return ""
}

// inForce is what the kernel held after the last sync that succeeded.
type inForce struct {
	view *view
	held quarantine
}

// policies returns those that were in force.
func (f *inForce) policies() map[policyID]bool {
	ids := map[policyID]bool{}
	if f.view == nil {
		return ids
	}
	for _, p := range f.view.Selecting {
		if !f.held.holds(p) {
			ids[idOf(p)] = true
		}
	}
	return ids
}

// holdDebtors puts the policies into quarantine that are new or changed, of namespaces
// whose tries have taken too much of the node's time.
func (e *enforcer) holdDebtors(now time.Time) {
	for namespace := range e.debts.Of {
		until := e.debts.Until(namespace, now)
		if until.IsZero() {
			continue
		}
		inForce := e.last.policies()
		waits := &refusal{err: &pacing.DebtError{Namespace: namespace, Until: until}, wait: quarantineFirst, retry: until}
		for _, p := range e.view.Selecting {
			if p.Namespace == namespace && !inForce[idOf(p)] && !e.quarantine.holds(p) {
				e.quarantine = e.quarantine.including(p, waits)
			}
		}
	}
}

// including returns the quarantine with one more policy.
func (q quarantine) including(p *policy.Policy, r *refusal) quarantine {
	held := q.with([]policyID{idOf(p)}, r.err, r.retry)
	held[idOf(p)] = r
	return held
}

// due returns the policies in quarantine to try again. Those of a namespace whose tries took
// too much time wait, and those of one that has a debt are tried one by one: a try of several
// could be as long, and no namespace would be charged for it.
func (e *enforcer) due(now time.Time) []policyID {
	due := e.quarantine.due(now)
	if len(due) == 0 {
		return nil
	}
	e.oldestFirst(due)
	return slices.DeleteFunc(due, func(id policyID) bool {
		if e.quarantine[id].wait == 0 { // it was never tried alone
			return false
		}
		namespace := e.view.namespaceOf(id)
		if e.debts.Owed(namespace, now) > 0 && e.searchBy == 0 {
			e.searchBy = 1
		}
		return e.debts.Owes(namespace, now)
	})
}
