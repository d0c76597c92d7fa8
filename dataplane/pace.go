package dataplane

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
)

// Bounds of the time for which one namespace that rewrites its policies makes the others
// wait. All changes of a sync are written together, so a change of another namespace waits for
// what was begun before it, and for what is written with it.
const (
	// paceAtOnce is how much of a namespace's work one sync does, by estimate. A policy that
	// is more by itself goes alone.
	paceAtOnce = 250 * time.Millisecond

	// paceShare is the part of all time that the changes of a namespace may take: one in so
	// many. As much as paceFree is done without a wait.
	paceShare = 5
	paceFree  = 2 * time.Second
)

// errThrottled is why a policy isn't enforced as it is written now.
var errThrottled = errors.New("the policies of its namespace change so often, and are so large, that the node writes them one after the other: " +
	"until its turn comes what it allowed before stays, and pods that it newly selects may do no more than other policies allow; " +
	"change large policies less often, or make them smaller")

// pace decides which changed policies the rules follow now, and which wait. A policy that
// waits isolates the pods that it selects, and allows what its version in force allowed:
// nothing is open that it closes for the first time. Removed policies go at once, as do all
// policies of a namespace whose first pod came to the node.
type pace struct {
	debts    debts
	enforced map[string]map[string]*policy.Policy // by namespace and name; nil before the first view
	waiting  map[*policy.Policy]*waiter
	timer    *time.Timer
}

// waiter is a version of a policy that waits.
type waiter struct {
	work   time.Duration
	since  time.Time
	closed *policy.Policy // isolates as the policy does, and allows nothing
}

func newPace() pace {
	return pace{debts: newDebts(paceShare, paceFree), waiting: map[*policy.Policy]*waiter{}}
}

// follow has the view enforce the policies whose turn it is, and earlier versions of the
// others. Work estimates what a policy takes; it is asked once for each.
func (c *pace) follow(v *view, work func(*policy.Policy) time.Duration, now time.Time) {
	waiting := c.choose(v.Policies, work, now)
	enforced := make([]*policy.Policy, 0, len(v.Policies)+len(waiting))
	next := map[string]map[string]*policy.Policy{}
	for _, p := range v.Policies {
		if w := waiting[p]; w != nil {
			enforced = append(enforced, w.closed)
			p = c.enforced[p.Namespace][p.Name] // nil where there was none
		}
		if p == nil {
			continue
		}
		enforced = append(enforced, p)
		if next[p.Namespace] == nil {
			next[p.Namespace] = map[string]*policy.Policy{}
		}
		next[p.Namespace][p.Name] = p
	}
	for _, pod := range v.Local { // a namespace without policies is known, too
		if next[pod.Namespace] == nil {
			next[pod.Namespace] = map[string]*policy.Policy{}
		}
	}
	c.enforced, c.waiting = next, waiting
	if len(waiting) == 0 {
		return
	}
	v.waiting = make(map[types.UID]*policy.Policy, len(waiting))
	for p := range waiting {
		v.waiting[p.UID] = p
	}
	v.View = v.With(enforced)
	v.Selecting = slices.DeleteFunc(v.Selecting, func(p *policy.Policy) bool { return strings.HasSuffix(p.Name, waitingSuffix) })
}

// choose returns the policies that wait. Of those that changed the ones that waited longest
// come first.
func (c *pace) choose(policies []*policy.Policy, work func(*policy.Policy) time.Duration, now time.Time) map[*policy.Policy]*waiter {
	waiting := map[*policy.Policy]*waiter{}
	var changed []*policy.Policy
	for _, p := range policies {
		before, known := c.enforced[p.Namespace]
		if !known || sameVersion(before[p.Name], p) {
			continue
		}
		changed = append(changed, p)
		if waiting[p] = c.waiting[p]; waiting[p] == nil {
			waiting[p] = &waiter{work: work(p), since: c.since(p, now), closed: closedBy(p)}
		}
	}
	slices.SortStableFunc(changed, func(a, b *policy.Policy) int { return waiting[a].since.Compare(waiting[b].since) })
	begun := map[string]time.Duration{}
	for _, p := range changed {
		work := waiting[p].work
		more := begun[p.Namespace] + work
		if work > 0 && (c.debts.owes(p.Namespace, now) || begun[p.Namespace] > 0 && more > paceAtOnce) {
			continue
		}
		if work > 0 {
			begun[p.Namespace] = more
			c.debts.charge(p.Namespace, work, now)
		}
		delete(waiting, p)
	}
	return waiting
}

// since is when a policy began to wait: one that is changed meanwhile keeps its place.
func (c *pace) since(p *policy.Policy, now time.Time) time.Time {
	for earlier, w := range c.waiting {
		if earlier.UID == p.UID {
			return w.since
		}
	}
	return now
}

// sameVersion reports whether what a policy means can't have changed. Before may be nil.
func sameVersion(before, p *policy.Policy) bool {
	return before == p || before != nil && before.UID == p.UID && before.Generation == p.Generation && before.Omitted == p.Omitted
}

// waitingSuffix is what no policy's name can end with.
const waitingSuffix = "/waits"

// closedBy returns a policy that isolates what another one does, and allows nothing.
func closedBy(p *policy.Policy) *policy.Policy {
	return &policy.Policy{
		Namespace: p.Namespace, Name: p.Name + waitingSuffix, UID: p.UID + waitingSuffix, Created: p.Created,
		Selector: p.Selector, Isolates: p.Isolates,
	}
}

// goOn has the loop look again when the turn of the next policy that waits has come.
func (c *pace) goOn(m *node.Model, now time.Time) {
	c.close()
	if len(c.waiting) == 0 {
		return
	}
	var turns []time.Time
	for p := range c.waiting {
		turns = append(turns, c.debts.until(p.Namespace, now))
	}
	first := slices.MinFunc(turns, time.Time.Compare)
	c.timer = time.AfterFunc(max(0, first.Sub(now)), m.Renew)
}

// reasons says of each policy that waits why, by its uid.
func (c *pace) reasons() map[types.UID]error {
	reasons := make(map[types.UID]error, len(c.waiting))
	for p := range c.waiting {
		reasons[p.UID] = errThrottled
	}
	return reasons
}

func (c *pace) close() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
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
