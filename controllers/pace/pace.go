// Package pace keeps the operator's writes of one object apart, however fast what
// they report changes: while a Deployment rolls out, its pods change many times in
// a second.
package pace

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Every is the least time between two writes of one object's status by one
// controller.
const Every = 2 * time.Second

// Pace knows when each object was written last. It is safe for concurrent use.
type Pace struct {
	every time.Duration

	mu    sync.Mutex
	wrote map[types.NamespacedName]time.Time
}

// New returns a Pace of its own; zero means Every.
func New(every time.Duration) *Pace {
	if every == 0 {
		every = Every
	}
	return &Pace{every: every, wrote: map[types.NamespacedName]time.Time{}}
}

// Wait returns how long it is until the object may be written; zero: it may be now.
func (p *Pace) Wait(key types.NamespacedName, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, found := p.wrote[key]
	if !found {
		return 0
	}
	return max(0, p.every-now.Sub(last))
}

// Wrote is for the moment of a write.
func (p *Pace) Wrote(key types.NamespacedName, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrote[key] = now
}

// Forget is for an object that is gone.
func (p *Pace) Forget(key types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.wrote, key)
}
