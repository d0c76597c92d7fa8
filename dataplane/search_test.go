package dataplane

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

func suspects(n int) []policyID {
	ids := make([]policyID, n)
	for i := range ids {
		ids[i] = policyID{types.UID(fmt.Sprintf("%04d", i)), 1}
	}
	return ids
}

// tries runs a search where a group can go if works says so of all that are free
// then, and returns who is held at the end and how many tries it took.
func tries(t *testing.T, all []policyID, works func(free []policyID) bool) (held []policyID, count int) {
	t.Helper()
	s := newSearch(all, 0)
	for group := s.next(); len(group) > 0; group = s.next() {
		count++
		require.LessOrEqual(t, count, 4*len(all)+1, "it ends")
		back := s.without(group)
		free := slices.DeleteFunc(slices.Clone(all), func(id policyID) bool { return slices.Contains(back, id) })
		if works(free) {
			s.went()
		} else {
			s.failed()
		}
	}
	return s.held, count
}

// Exactly those at fault are held, after a number of tries that grows with their
// number and with the logarithm of all.
func TestTheSearchFindsWhoIsAtFault(t *testing.T) {
	source := rand.New(rand.NewPCG(1, 2))
	for _, row := range []struct{ suspects, faults int }{{1, 0}, {1, 1}, {2, 1}, {2, 2}, {7, 0}, {7, 1}, {7, 7}, {100, 1}, {100, 5}, {2000, 1}, {2000, 3}} {
		t.Run(fmt.Sprintf("%d of %d", row.faults, row.suspects), func(t *testing.T) {
			all := suspects(row.suspects)
			faults := make([]policyID, row.faults)
			for i, at := range source.Perm(row.suspects)[:row.faults] {
				faults[i] = all[at]
			}
			held, count := tries(t, all, func(free []policyID) bool {
				return !slices.ContainsFunc(free, func(id policyID) bool { return slices.Contains(faults, id) })
			})
			require.ElementsMatch(t, faults, held)
			require.LessOrEqual(t, count, 1+2*max(1, row.faults)*bits.Len(uint(row.suspects)))
			if row.faults == 0 {
				require.Equal(t, 1, count, "a failure that has gone costs one try")
			}
		})
	}
}

// Where there is room for some and not for all, as many as can go do.
func TestTheSearchWhereThereIsNoRoomForAll(t *testing.T) {
	held, _ := tries(t, suspects(100), func(free []policyID) bool { return len(free) <= 63 })
	require.Len(t, held, 37)
}

func TestTheSearchKnowsWhomItHasNotTried(t *testing.T) {
	all := suspects(4)
	s := newSearch(all, 0)
	s.failed()
	require.ElementsMatch(t, all, s.untried())
	s.went()
	require.ElementsMatch(t, all[2:], s.untried())
	require.ElementsMatch(t, all[2:], s.held)
	s.failed()
	s.failed()
	require.Equal(t, all[3:], s.untried())
	require.ElementsMatch(t, all[2:], s.held)
}
