package dataplane

import (
	"context"
	"time"
)

// backoff is a wait that doubles with each failure.
type backoff struct {
	first, most time.Duration
	wait        time.Duration // 0: not waiting
	timer       *time.Timer
}

func newBackoff(first, most time.Duration) *backoff {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &backoff{first: first, most: most, timer: timer}
}

// next starts the next wait and returns its length.
func (b *backoff) next() time.Duration {
	b.wait = min(max(b.first, 2*b.wait), b.most)
	b.timer.Reset(b.wait)
	return b.wait
}

func (b *backoff) reset() {
	b.wait = 0
	b.timer.Stop()
}

func (b *backoff) waiting() bool { return b.wait > 0 }

// due receives when the wait is over.
func (b *backoff) due() <-chan time.Time { return b.timer.C }

// sleep waits, and reports false if the context ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
