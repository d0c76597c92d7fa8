package dataplane

import (
	"time"

	"github.com/moat-dev/moat/dataplane/metrics"
)

// damage counts what others changed, by the kind of repair.
type damage map[string]int

func (d damage) add(more damage, m *metrics.Metrics) {
	for kind, n := range more {
		m.Repaired(kind, n)
		if n > 0 {
			d[kind] += n
		}
	}
}

// repaired returns what others changed and the sync that just ended repaired, and how
// long at most it was like that: since the last moment at which everything was known to be
// right. Nil for nothing.
func (e *enforcer) repaired(now time.Time) (damage, time.Duration) {
	repaired, gap := e.damage, now.Sub(e.right)
	e.right, e.damage = now, damage{}
	if len(repaired) == 0 {
		return nil, 0
	}
	e.metrics.RepairedAfter(gap)
	return repaired, gap
}
