package statuswriter

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Patience is how long a new generation may be on its way to the nodes before a status says
// so. Most need some tenths of a second: one write then says what two would, and no pace keeps
// the second one back. Until then the status speaks of the generation before, and
// `kubectl wait` goes on waiting.
const Patience = time.Second

// patience knows since when each object's generation is on its way. It is safe for
// concurrent use.
type patience struct {
	mu    sync.Mutex
	since map[types.NamespacedName]sight
}

// sight is when a generation was first seen.
type sight struct {
	generation int64
	at         time.Time
}

func newPatience() *patience { return &patience{since: map[types.NamespacedName]sight{}} }

// wait returns how much longer nothing has to be said. The time begins with the first call for
// a generation.
func (p *patience) wait(key types.NamespacedName, generation int64, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	seen, found := p.since[key]
	if !found || seen.generation != generation {
		seen = sight{generation: generation, at: now}
		p.since[key] = seen
	}
	return max(0, Patience-now.Sub(seen.at))
}

// forget is for an object whose status is up to date, or that is gone.
func (p *patience) forget(key types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.since, key)
}
