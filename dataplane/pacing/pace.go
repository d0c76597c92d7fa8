package pacing

import (
	"errors"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Bounds of the time for which one namespace that rewrites its policies makes the others
// wait. All changes of a sync are written together, so a change of another namespace waits for
// what was begun before it, and for what is written with it.
const (
	// AtOnce is how much of a namespace's work one sync does, by estimate. A policy that
	// is more by itself goes alone.
	AtOnce = 250 * time.Millisecond

	// Share is the part of all time that the changes of a namespace may take: one in so
	// many. As much as paceFree is done without a wait.
	Share = 5
	Free  = 2 * time.Second
)

// ErrThrottled is why a policy isn't enforced as it is written now.
var ErrThrottled = errors.New("the policies of its namespace change so often, and are so large, that the node writes them one after the other: " +
	"until its turn comes what it allowed before stays, and pods that it newly selects may do no more than other policies allow; " +
	"change large policies less often, or make them smaller")

// Pace decides which changed policies the rules follow now, and which wait. A policy that
// waits isolates the pods that it selects, and allows what its version in force allowed:
// nothing is open that it closes for the first time. Removed policies go at once, as do all
// policies of a namespace whose first pod came to the node.
type Pace struct {
	debts    Debts
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

// New returns a pace for which nothing is in force yet.
func New() Pace {
	return Pace{debts: NewDebts(Share, Free), waiting: map[*policy.Policy]*waiter{}}
}

// Charge notes that a namespace's policies took some time.
func (c *Pace) Charge(namespace string, took time.Duration, now time.Time) {
	c.debts.Charge(namespace, took, now)
}

// Forgive forgets what all namespaces took.
func (c *Pace) Forgive() { clear(c.debts.Of) }

// Follow returns what is to be enforced of the policies: those whose turn it is, and earlier
// versions of the others, which wait, by their uid. The pods are those of the node. Work
// estimates what a policy takes; it is asked once for each.
func (c *Pace) Follow(policies []*policy.Policy, pods []*policy.Pod, work func(*policy.Policy) time.Duration, now time.Time) (enforced []*policy.Policy, waits map[types.UID]*policy.Policy) {
	waiting := c.choose(policies, work, now)
	enforced = make([]*policy.Policy, 0, len(policies)+len(waiting))
	next := map[string]map[string]*policy.Policy{}
	for _, p := range policies {
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
	for _, pod := range pods { // a namespace without policies is known, too
		if next[pod.Namespace] == nil {
			next[pod.Namespace] = map[string]*policy.Policy{}
		}
	}
	c.enforced, c.waiting = next, waiting
	waits = make(map[types.UID]*policy.Policy, len(waiting))
	for p := range waiting {
		waits[p.UID] = p
	}
	return enforced, waits
}

// StandsIn reports whether a policy that follow returned only isolates, in place of one that
// waits.
func StandsIn(p *policy.Policy) bool { return strings.HasSuffix(p.Name, waitingSuffix) }

// choose returns the policies that wait. Of those that changed the ones that waited longest
// come first.
func (c *Pace) choose(policies []*policy.Policy, work func(*policy.Policy) time.Duration, now time.Time) map[*policy.Policy]*waiter {
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
		if work > 0 && (c.debts.Owes(p.Namespace, now) || begun[p.Namespace] > 0 && more > AtOnce) {
			continue
		}
		if work > 0 {
			begun[p.Namespace] = more
			c.Charge(p.Namespace, work, now)
		}
		delete(waiting, p)
	}
	return waiting
}

// since is when a policy began to wait. A change keeps its place.
func (c *Pace) since(p *policy.Policy, now time.Time) time.Time {
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

// GoOn calls renew when the turn of the next policy that waits has come.
func (c *Pace) GoOn(renew func(), now time.Time) {
	c.Close()
	if len(c.waiting) == 0 {
		return
	}
	var turns []time.Time
	for p := range c.waiting {
		turns = append(turns, c.debts.Until(p.Namespace, now))
	}
	first := slices.MinFunc(turns, time.Time.Compare)
	c.timer = time.AfterFunc(max(0, first.Sub(now)), renew)
}

// Reasons says of each policy that waits why, by its uid.
func (c *Pace) Reasons() map[types.UID]error {
	reasons := make(map[types.UID]error, len(c.waiting))
	for p := range c.waiting {
		reasons[p.UID] = ErrThrottled
	}
	return reasons
}

// Close stops the timer of GoOn.
func (c *Pace) Close() {
	if c.timer != nil {
		c.timer.Stop()
		c.timer = nil
	}
}
