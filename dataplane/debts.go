package dataplane

import (
	"fmt"
	"time"
)

// Bounds of the time that a node spends on the policies of one namespace which the kernel
// doesn't take.
const (
	// debtShare is the part of all time that tries of such policies may take: a try that
	// took 30 seconds is followed by 16 minutes without one.
	debtShare = 32

	// debtFree is how much time a namespace may take before its next try waits: whoever
	// corrects a policy that was refused at once waits for nothing.
	debtFree = 10 * time.Second
)

// debts knows of each namespace how much time the node spent on its policies. A debt
// shrinks by one second in as many as share says, and as much as free says delays nobody. It is a
// namespace's and not a policy's, since a policy can be edited each minute, or deleted and
// made again.
type debts struct {
	share time.Duration
	free  time.Duration
	of    map[string]debt
}

func newDebts(share time.Duration, free time.Duration) debts {
	return debts{share, free, map[string]debt{}}
}

type debt struct {
	owed time.Duration
	at   time.Time
}

// charge adds to a namespace's debt, and forgets the namespaces without one.
func (d debts) charge(namespace string, took time.Duration, now time.Time) {
	owed := d.owed(namespace, now) + took
	for other := range d.of {
		if d.owed(other, now) == 0 {
			delete(d.of, other)
		}
	}
	d.of[namespace] = debt{owed, now}
}

func (d debts) owed(namespace string, now time.Time) time.Duration {
	return max(0, d.of[namespace].owed-now.Sub(d.of[namespace].at)/d.share)
}

// until returns when policies of the namespace have their turn again; zero: now.
func (d debts) until(namespace string, now time.Time) time.Time {
	over := d.owed(namespace, now) - d.free
	if over <= 0 {
		return time.Time{}
	}
	return now.Add(over * d.share)
}

// owes reports whether the next policy of the namespace waits.
func (d debts) owes(namespace string, now time.Time) bool { return !d.until(namespace, now).IsZero() }

// debtError is why a policy is closed that wasn't tried.
type debtError struct {
	namespace string
	until     time.Time
}

// Error implements error.
func (e *debtError) Error() string {
	return fmt.Sprintf("policies of namespace %s took the node so much time in vain that new ones and changed ones wait until %s: "+
		"split those policies or make them smaller; deleting one takes effect at once", e.namespace, e.until.UTC().Format(time.RFC3339))
}
