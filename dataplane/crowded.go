package dataplane

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/moat-dev/moat/dataplane/backoff"
	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// mostSets is how many sets the kernel takes of all programs together (IP_SET_INC and
// IPSET_INVALID_ID in net/netfilter/ipset/ip_set_core.c).
const mostSets = 65472

// With nft the kernel lets go of a set a moment after the rule that named it.
const (
	setsGoWithin = 2 * time.Second
	setsGoPoll   = 20 * time.Millisecond
)

// holding is how many sets a policy takes.
type holding struct {
	policyID
	namespace string
	sets      int
}

// crowdError is why a policy is closed where the kernel has no room for a further set.
type crowdError struct {
	holding
	total int // sets of the namespace
	err   error
}

// Error implements error.
func (e *crowdError) Error() string {
	return fmt.Sprintf("the kernel has no room for a further set, and the policies of namespace %s take the most on this node (%d, this one %d): "+
		"use selectors that more rules share, fewer of them, or fewer port names: %v", e.namespace, e.total, e.sets, e.err)
}

// Unwrap gives the kernel's word.
func (e *crowdError) Unwrap() error { return e.err }

// makeRoom is findFaults for a pass in which the kernel had no room for a further set. At
// fault is not the policy whose set came last, but those that take the most: of the
// namespace that takes the most, the policies with the most. The suspects, whose sets are
// lacking, are held for a pass, since a pass makes sets before it destroys others. known
// has the policies that were in quarantine before.
func (e *enforcer) makeRoom(ctx context.Context, m *node.Model, suspects []policyID, known quarantine, err error) error {
	before, holdings := e.quarantine, e.holdings()
	for need := e.overfull(); ; need *= 2 {
		greedy := greediest(holdings, need)
		held := before.with(nil, nil, time.Time{})
		for _, of := range greedy {
			held[of.policyID] = &refusal{err: &crowdError{of, totals(holdings)[of.namespace], err}}
			if old := known[of.policyID]; old != nil {
				held[of.policyID].wait = old.wait
			}
		}
		if e.passUntilSetsAreGone(ctx, m, held.with(suspects, err, time.Now())) != nil {
			e.hold(before) // it is no policy's fault
			return err
		}
		again := e.passWith(ctx, m, held)
		if again == nil {
			for _, of := range greedy {
				e.refuse(e.quarantine, of.policyID, held[of.policyID].err, time.Since(e.begun)/time.Duration(len(greedy)))
			}
			return nil
		}
		if !ipset.IsFull(again) || len(greedy) == len(holdings) {
			e.hold(before)
			return again
		}
	}
}

// passUntilSetsAreGone makes passes until all sets are gone that no rule names.
func (e *enforcer) passUntilSetsAreGone(ctx context.Context, m *node.Model, q quarantine) error {
	for end := time.Now().Add(setsGoWithin); ; {
		if err := e.passWith(ctx, m, q); err != nil || e.trusted || time.Now().After(end) {
			return err
		}
		if !backoff.Sleep(ctx, setsGoPoll) {
			return ctx.Err()
		}
	}
}

// fillsKernel reports whether the outputs name a good part of the sets that the kernel takes.
// Otherwise other programs fill it: then the policies are closed whose sets are lacking, and
// none that is in force.
func (e *enforcer) fillsKernel() bool { return len(declaredSets(e.outputs)) >= e.room/4 }

// overfull returns how many sets the outputs name beyond those that the kernel takes, one at
// least.
func (e *enforcer) overfull() int { return max(1, len(declaredSets(e.outputs))-e.room) }

// holdings counts the sets of each policy outside of quarantine.
func (e *enforcer) holdings() []holding {
	sets := map[policyID]map[string]bool{}
	for i := range e.outputs {
		countSets(&e.outputs[i], sets)
	}
	var holdings []holding
	for _, p := range e.view.Selecting {
		// Chains hold the rules of all policies that isolate the same pods.
		if n := min(len(sets[idOf(p)]), mostSetsOf(p)); n > 0 {
			holdings = append(holdings, holding{idOf(p), p.Namespace, n})
		}
	}
	return holdings
}

// mostSetsOf bounds the sets that a policy takes: one for each peer, port name and family.
func mostSetsOf(p *policy.Policy) int {
	n := 0
	for _, rules := range p.Rules {
		for i := range rules {
			names := 0
			for _, port := range rules[i].Ports {
				if port.Name != "" {
					names++
				}
			}
			n += max(1, len(rules[i].Peers)) * (1 + names)
		}
	}
	return n * len(ruleset.Families())
}

func countSets(output *compile.Output, sets map[policyID]map[string]bool) {
	for i := range output.Ruleset.Chains {
		chain := &output.Ruleset.Chains[i]
		for _, p := range output.Origins[chain.Name] {
			if sets[idOf(p)] == nil {
				sets[idOf(p)] = map[string]bool{}
			}
			for _, name := range chain.SetNames() {
				sets[idOf(p)][name] = true
			}
		}
	}
}

func totals(holdings []holding) map[string]int {
	totals := map[string]int{}
	for _, h := range holdings {
		totals[h.namespace] += h.sets
	}
	return totals
}

// greediest returns the policies that have to go to make room for so many sets: always the
// largest of the namespace that has the most then. Of equal ones the last by name and uid.
func greediest(holdings []holding, need int) []holding {
	totals, left := totals(holdings), slices.Clone(holdings)
	var greedy []holding
	for need > 0 && len(left) > 0 {
		most := slices.MaxFunc(left, func(a, b holding) int {
			return cmp.Or(cmp.Compare(totals[a.namespace], totals[b.namespace]), cmp.Compare(a.namespace, b.namespace),
				cmp.Compare(a.sets, b.sets), cmp.Compare(a.uid, b.uid))
		})
		greedy = append(greedy, most)
		totals[most.namespace] -= most.sets
		need -= most.sets
		left = slices.DeleteFunc(left, func(h holding) bool { return h == most })
	}
	return greedy
}
