package backoff

import (
	"context"
	"time"
)

// Backoff is a wait that doubles with each failure.
type Backoff struct {
	first, most time.Duration
	wait        time.Duration // 0: not waiting
	timer       *time.Timer
}

// New returns a backoff that waits for first after the first failure, and for most at most.
func New(first, most time.Duration) *Backoff {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &Backoff{first: first, most: most, timer: timer}
}

// Next starts the next wait and returns its length.
func (b *Backoff) Next() time.Duration {
	b.wait = min(max(b.first, 2*b.wait), b.most)
	b.timer.Reset(b.wait)
	return b.wait
}

// Reset ends the wait. The next one is the shortest.
func (b *Backoff) Reset() {
	b.wait = 0
	b.timer.Stop()
}

// Waiting reports whether the last try failed.
func (b *Backoff) Waiting() bool { return b.wait > 0 }

// Due receives when the wait is over.
func (b *Backoff) Due() <-chan time.Time { return b.timer.C }

// Sleep waits, and reports false if the context ended first.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
