package pacing

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestADebtShrinksWithTime(t *testing.T) {
	now, d := time.Unix(1000, 0), NewDebts(DebtShare, DebtFree)
	require.False(t, d.Owes("a", now))
	d.Charge("a", DebtFree, now)
	require.False(t, d.Owes("a", now), "what is refused at once is free")
	d.Charge("a", 30*time.Second, now)
	require.Equal(t, now.Add(30*DebtShare*time.Second), d.Until("a", now))
	require.True(t, d.Owes("a", now.Add(30*DebtShare*time.Second-1)))
	require.False(t, d.Owes("a", now.Add(30*DebtShare*time.Second)))
	require.False(t, d.Owes("b", now), "another namespace owes nothing")

	later := now.Add(24 * time.Hour)
	d.Charge("b", time.Second, later)
	require.Len(t, d.Of, 1, "who owes nothing is forgotten")
}

// Whoever edits a policy each minute, or makes a new one, each of which is killed after half
// a minute, takes some 3 % of the node's time.
func TestEditsEachMinuteTakeAShareOfTime(t *testing.T) {
	const each = 30 * time.Second
	start, d := time.Unix(0, 0), NewDebts(DebtShare, DebtFree)
	now, spent := start, time.Duration(0)
	for now.Before(start.Add(24 * time.Hour)) {
		if !d.Owes("a", now) {
			now, spent = now.Add(each), spent+each
			d.Charge("a", each, now)
		}
		now = now.Add(time.Minute)
	}
	share := float64(spent) / float64(now.Sub(start))
	require.InDelta(t, 1.0/DebtShare, share, 0.01)
}
