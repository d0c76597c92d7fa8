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

// debts knows of each namespace how much time the node spent on its policies in vain. A
// debt shrinks by one second in debtShare seconds. It is a namespace's and not a policy's,
// since a policy can be edited each minute, or deleted and made again.
type debts map[string]debt

type debt struct {
	owed time.Duration
	at   time.Time
}

// charge adds to a namespace's debt, and forgets the namespaces without one.
func (d debts) charge(namespace string, took time.Duration, now time.Time) {
	owed := d.owed(namespace, now) + took
	for other := range d {
		if d.owed(other, now) == 0 {
			delete(d, other)
		}
	}
	d[namespace] = debt{owed, now}
}

func (d debts) owed(namespace string, now time.Time) time.Duration {
	return max(0, d[namespace].owed-now.Sub(d[namespace].at)/debtShare)
}

// until returns when policies of the namespace may be tried again; zero: now.
func (d debts) until(namespace string, now time.Time) time.Time {
	over := d.owed(namespace, now) - debtFree
	if over <= 0 {
		return time.Time{}
	}
	return now.Add(over * debtShare)
}

// owes reports whether the next try of a policy of the namespace waits.
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
