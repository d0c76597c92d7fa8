package dataplane

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestADebtShrinksWithTime(t *testing.T) {
	now, d := time.Unix(1000, 0), newDebts(debtShare, debtFree)
	require.False(t, d.owes("a", now))
	d.charge("a", debtFree, now)
	require.False(t, d.owes("a", now), "what is refused at once is free")
	d.charge("a", 30*time.Second, now)
	require.Equal(t, now.Add(30*debtShare*time.Second), d.until("a", now))
	require.True(t, d.owes("a", now.Add(30*debtShare*time.Second-1)))
	require.False(t, d.owes("a", now.Add(30*debtShare*time.Second)))
	require.False(t, d.owes("b", now), "another namespace owes nothing")

	later := now.Add(24 * time.Hour)
	d.charge("b", time.Second, later)
	require.Len(t, d.of, 1, "who owes nothing is forgotten")
}

// Whoever edits a policy each minute, or makes a new one, each of which is killed after half
// a minute, takes some 3 % of the node's time.
func TestEditsEachMinuteTakeAShareOfTime(t *testing.T) {
	const each = 30 * time.Second
	start, d := time.Unix(0, 0), newDebts(debtShare, debtFree)
	now, spent := start, time.Duration(0)
	for now.Before(start.Add(24 * time.Hour)) {
		if !d.owes("a", now) {
			now, spent = now.Add(each), spent+each
			d.charge("a", each, now)
		}
		now = now.Add(time.Minute)
	}
	share := float64(spent) / float64(now.Sub(start))
	require.InDelta(t, 1.0/debtShare, share, 0.01)
}
