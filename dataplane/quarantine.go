package dataplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
)

// Timing of quarantine.
const (
	// quarantineFirst and quarantineMost bound the wait until a policy in quarantine
	// is tried again, which doubles. Another generation of it is tried at once.
	quarantineFirst = 10 * time.Second
	quarantineMost  = 10 * time.Minute

	// searchWithin bounds one search for policies at fault. What it left untried
	// stays closed and is searched by the next sync.
	searchWithin = 30 * time.Second
)

// quarantine holds the policies whose rules the kernel refuses. While a policy is
// in it, the pods that it isolates are closed in the directions in which it isolates
// them, whatever other policies allow, and no rule or set is made for it.
type quarantine map[policyID]*refusal

// refusal says why a policy is in quarantine, and until when.
type refusal struct {
	err   error
	wait  time.Duration
	retry time.Time
}

func idOf(p *policy.Policy) policyID { return policyID{p.UID, p.Generation} }

func (q quarantine) holds(p *policy.Policy) bool {
	_, held := q[idOf(p)]
	return held
}

// faulty leaves out the suspects that are still to be tried: theirs may be no fault,
// and their connections are left alone until then.
func (q quarantine) faulty() quarantine {
	faulty := quarantine{}
	for id, refusal := range q {
		if refusal.wait > 0 {
			faulty[id] = refusal
		}
	}
	return faulty
}

// close returns the endpoints as they are to be enforced.
func (q quarantine) close(endpoints []policy.Endpoint) []policy.Endpoint {
	if len(q) == 0 {
		return endpoints
	}
	return closeThose(endpoints, q.holds)
}

// keep forgets all but the given policies: what has gone or has another generation
// is in quarantine no more.
func (q quarantine) keep(selecting []*policy.Policy) {
	present := make(map[policyID]bool, len(selecting))
	for _, p := range selecting {
		present[idOf(p)] = true
	}
	maps.DeleteFunc(q, func(id policyID, _ *refusal) bool { return !present[id] })
}

// due returns the policies to try again.
func (q quarantine) due(now time.Time) []policyID {
	var ids []policyID
	for id, refusal := range q {
		if !refusal.retry.After(now) {
			ids = append(ids, id)
		}
	}
	sortIDs(ids)
	return ids
}

func sortIDs(ids []policyID) {
	slices.SortFunc(ids, func(a, b policyID) int {
		return cmp.Or(cmp.Compare(a.uid, b.uid), cmp.Compare(a.generation, b.generation))
	})
}

// with returns a quarantine that holds exactly the given of q and of the suspects,
// the latter to be tried at once.
func (q quarantine) with(suspects []policyID, err error, now time.Time) quarantine {
	held := maps.Clone(q)
	if held == nil {
		held = quarantine{}
	}
	for _, id := range suspects {
		if held[id] == nil {
			held[id] = &refusal{err: err, retry: now}
		}
	}
	return held
}

// refused notes that a policy was tried and failed.
func (q quarantine) refused(id policyID, err error, now time.Time) {
	r := *q[id]
	r.err, r.wait = err, min(max(quarantineFirst, 2*r.wait), quarantineMost)
	r.retry = now.Add(r.wait)
	q[id] = &r
}

// reasons says for each policy in quarantine why it is there.
func (q quarantine) reasons() map[types.UID]error {
	reasons := make(map[types.UID]error, len(q))
	for id, refusal := range q {
		reasons[id.uid] = refusal.err
	}
	return reasons
}

// isRefusal reports whether a pass failed since the kernel or iptables-restore said
// no to rules or sets, be it for good or by an accident.
func isRefusal(err error) bool {
	return (iptables.IsRefusal(err) || ipset.IsUnmade(err)) &&
		!iptables.IsPermission(err) && !ipset.IsPermission(err) && !iptables.IsLock(err)
}

// findFaults takes the outcome of a pass. Where rules were refused, or policies in
// quarantine are to be tried again, it finds the policies at fault with further
// passes. It returns nil if all policies but these are in force.
func (e *enforcer) findFaults(ctx context.Context, m *node.Model, err error) error {
	now := time.Now()
	if err == nil {
		if due := e.due(now); len(due) > 0 {
			return e.letGo(ctx, m, due)
		}
		return nil
	}
	switch {
	case ctx.Err() != nil:
		return err
	case iptables.IsKilled(err):
		return e.findKillers(ctx, m, err)
	case ipset.IsFull(err) && e.fillsKernel():
		return e.makeRoom(ctx, m, e.suspects(), quarantine{}, err)
	}
	if !isRefusal(err) || !e.restoresNothing(ctx, m) {
		return err
	}
	// Once more: a failure that passes mustn't close any pod.
	before := e.quarantine
	if err = e.passWith(ctx, m, before); !isRefusal(err) {
		return err
	}
	suspects := e.suspects()
	if len(suspects) == 0 {
		return err
	}
	if e.passWith(ctx, m, before.with(suspects, err, now)) != nil {
		// Not even without them: it is no policy's fault.
		e.hold(before)
		return err
	}
	return e.letGo(ctx, m, suspects)
}

// restoresNothing reports whether iptables-restore takes a change of nothing. Where it
// doesn't, it is no policy's fault.
func (e *enforcer) restoresNothing(ctx context.Context, m *node.Model) bool {
	restores := true
	e.meanwhile(m, func() {
		for _, runner := range e.runners {
			restores = restores && runner.Apply(ctx, iptables.Change{}) == nil
		}
	})
	return restores
}

// suspects returns the policies whose rules are in the chains that the kernel lacks,
// those in quarantine left out and those that were in force first.
func (e *enforcer) suspects() []policyID {
	ids := slices.Collect(maps.Keys(e.weights()))
	sortIDs(ids)
	e.oldestFirst(ids)
	return ids
}

// letGo lets policies that are in quarantine go, but for those at fault. Each try
// is a pass: the policies that went are in force while the others are searched.
func (e *enforcer) letGo(ctx context.Context, m *node.Model, suspects []policyID) error {
	all, s, end := e.quarantine, newSearch(suspects, e.searchBy), time.Now().Add(searchWithin)
	held := func(group []policyID) quarantine {
		q := maps.Clone(all)
		back := s.without(group)
		maps.DeleteFunc(q, func(id policyID, _ *refusal) bool {
			return slices.Contains(suspects, id) && !slices.Contains(back, id)
		})
		return q
	}
	for group := s.next(); len(group) > 0 && time.Now().Before(end); group = s.next() {
		begun := time.Now()
		err := e.passWith(ctx, m, held(group))
		switch {
		case err == nil:
			s.went()
			continue
		case ctx.Err() != nil || !mayBeFault(err):
			e.hold(held(nil))
			return err
		case len(group) > 1:
			e.searchSlower(len(group), err)
		case ipset.IsFull(err) && e.fillsKernel():
			return e.makeRoom(ctx, m, group, all, err)
		case iptables.IsKilled(err) && !e.succeedsTwice(ctx, m, held(nil)):
			e.hold(held(nil))
			return err
		default:
			e.refuse(all, group[0], err, time.Since(begun))
		}
		s.failed()
	}
	if len(s.untried()) == 0 {
		e.searchBy = 0
	}
	// The last try may have failed: then the kernel holds what the one before left.
	return e.passWith(ctx, m, held(nil))
}

// hold makes the next pass enforce with the given quarantine.
func (e *enforcer) hold(q quarantine) {
	e.quarantine, e.outputs = q, nil
}

// passWith makes a pass with the given quarantine, of what was last seen of the
// model: what came since mustn't be taken for the fault of a suspect.
func (e *enforcer) passWith(ctx context.Context, m *node.Model, q quarantine) error {
	e.progress()
	e.hold(q)
	err := e.bring(ctx, m)
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("searching the policies at fault: %w", err)
	}
	return err
}
