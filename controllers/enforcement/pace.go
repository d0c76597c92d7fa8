package enforcement

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// pace keeps writes of one object apart. It is safe for concurrent use.
type pace struct {
	every time.Duration

	mu    sync.Mutex
	wrote map[types.NamespacedName]time.Time
}

func newPace(every time.Duration) *pace {
	if every == 0 {
		every = writeEvery
	}
	return &pace{every: every, wrote: map[types.NamespacedName]time.Time{}}
}

// wait returns how long it is until the object may be written; if it may be now,
// zero, and the caller is taken to write it.
func (p *pace) wait(key types.NamespacedName, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if last, found := p.wrote[key]; found && now.Sub(last) < p.every {
		return p.every - now.Sub(last)
	}
	p.wrote[key] = now
	return 0
}

// forget is for an object that is gone.
func (p *pace) forget(key types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.wrote, key)
}
