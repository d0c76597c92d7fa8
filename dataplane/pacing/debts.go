package pacing

import (
	"fmt"
	"time"
)

// Bounds of the time that a node spends on the policies of one namespace which the kernel
// doesn't take.
const (
	// DebtShare is the part of all time that tries of such policies may take: a try that
	// took 30 seconds is followed by 16 minutes without one.
	DebtShare = 32

	// DebtFree is how much time a namespace may take before its next try waits: a user
	// who corrects a policy that was refused at once waits for nothing.
	DebtFree = 10 * time.Second
)

// Debts knows of each namespace how much time the node spent on its policies. A debt
// shrinks by one second in as many as share says, and a debt up to free delays no policy. It is a
// namespace's and not a policy's, since a policy can be edited each minute, or deleted and
// made again.
type Debts struct {
	share time.Duration
	free  time.Duration
	Of    map[string]debt
}

// NewDebts returns debts that shrink by one second in share, and of which free are no reason to wait.
func NewDebts(share time.Duration, free time.Duration) Debts {
	return Debts{share, free, map[string]debt{}}
}

type debt struct {
	owed time.Duration
	at   time.Time
}

// Charge adds to a namespace's debt, and forgets the namespaces without one.
func (d Debts) Charge(namespace string, took time.Duration, now time.Time) {
	owed := d.Owed(namespace, now) + took
	for other := range d.Of {
		if d.Owed(other, now) == 0 {
			delete(d.Of, other)
		}
	}
	d.Of[namespace] = debt{owed, now}
}

// Owed returns how much of a namespace's debt is left.
func (d Debts) Owed(namespace string, now time.Time) time.Duration {
	return max(0, d.Of[namespace].owed-now.Sub(d.Of[namespace].at)/d.share)
}

// Until returns when policies of the namespace have their turn again; zero: now.
func (d Debts) Until(namespace string, now time.Time) time.Time {
	over := d.Owed(namespace, now) - d.free
	if over <= 0 {
		return time.Time{}
	}
	return now.Add(over * d.share)
}

// Owes reports whether the next policy of the namespace waits.
func (d Debts) Owes(namespace string, now time.Time) bool { return !d.Until(namespace, now).IsZero() }

// DebtError is why a policy is closed that wasn't tried.
type DebtError struct {
	Namespace string
	Until     time.Time
}

// Error implements error.
func (e *DebtError) Error() string {
	return fmt.Sprintf("policies of namespace %s took the node so much time in vain that new ones and changed ones wait until %s: "+
		"split those policies or make them smaller; deleting one takes effect at once", e.Namespace, e.Until.UTC().Format(time.RFC3339))
}
