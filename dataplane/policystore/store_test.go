package policystore_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policystore"
)

// sized returns a policy with a rule. The number is its age, too: the larger, the younger.
func sized(namespace string, number, size int) *policy.Policy {
	p := &policy.Policy{
		Namespace: namespace, Name: fmt.Sprint("p", number), UID: types.UID(fmt.Sprint(namespace, number)), Generation: 1,
		Created: int64(number), Selector: labels.Everything(), Isolates: [policy.Directions]bool{true, false}, Size: size,
	}
	p.Rules[policy.Ingress] = []policy.Rule{{AnyPeer: true, AnyPort: true}}
	return p
}

func whole(held ...*policystore.Held) []bool {
	var whole []bool
	for _, h := range held {
		p := h.Policy()
		whole = append(whole, !p.Omitted && len(p.Rules[policy.Ingress]) > 0)
	}
	return whole
}

// The youngest policies of a namespace are held without rules, in whatever order they come,
// and others' namespaces don't matter.
func TestTheYoungestAreOmitted(t *testing.T) {
	for range 20 {
		s := policystore.New(100)
		changed := map[types.NamespacedName]bool{}
		s.Changed = func(h *policystore.Held) { changed[h.Key()] = true }
		held := map[int]*policystore.Held{}
		for _, n := range rand.Perm(5) {
			held[n] = s.Add(sized("a", n, 30))
		}
		other := s.Add(sized("b", 9, 100))
		require.Equal(t, []bool{true, true, true, false, false, true}, whole(held[0], held[1], held[2], held[3], held[4], other))
		require.InDelta(t, 1.5, s.Used(), 0.001)
		for _, n := range []int{3, 4} {
			p := held[n].Policy()
			require.True(t, changed[p.Key()])
			require.True(t, p.Isolates[policy.Ingress], "it still closes the pods that it selects")
		}
		require.False(t, changed[other.Key()])
		require.Empty(t, s.Fitting())
	}
}

// One that is larger than the limit is omitted, and takes no room from younger ones.
func TestOneThatIsTooLargeTakesNoRoom(t *testing.T) {
	s := policystore.New(100)
	large, small := s.Add(sized("a", 1, 101)), s.Add(sized("a", 2, 100))
	require.Equal(t, []bool{false, true}, whole(large, small))
}

// When there is room again a policy can be read again, in the version that is held.
func TestRulesComeBack(t *testing.T) {
	s := policystore.New(100)
	told := 0
	s.Changed = func(*policystore.Held) { told++ }
	first, second, third := s.Add(sized("a", 1, 60)), s.Add(sized("a", 2, 60)), s.Add(sized("a", 3, 60))
	require.Equal(t, 2, told)
	s.Refill(second, sized("a", 2, 60))
	require.Equal(t, []bool{true, false, false}, whole(first, second, third), "there is no room yet")

	s.Remove(first)
	require.Equal(t, []*policystore.Held{second}, s.Fitting(), "the oldest is the one that fits")
	another := sized("a", 2, 60)
	another.Generation = 2
	s.Refill(second, another)
	require.Equal(t, []bool{false, false}, whole(second, third), "its watch will bring that version")
	s.Refill(third, sized("a", 3, 60))
	require.Equal(t, []bool{false, false}, whole(second, third), "the older one comes first")
	s.Refill(second, sized("a", 2, 60))
	require.Equal(t, []bool{true, false}, whole(second, third))
	require.Equal(t, 3, told)
	require.Empty(t, s.Fitting())

	// A version that is smaller, or larger, counts as it is now.
	second = s.Add(sized("a", 2, 40))
	require.Equal(t, []*policystore.Held{third}, s.Fitting())
	s.Refill(third, sized("a", 3, 60))
	require.Equal(t, []bool{true, true}, whole(second, third))
	second = s.Add(sized("a", 2, 41))
	require.Equal(t, []bool{true, false}, whole(second, third))
}

// Removing what another one of its name replaced changes nothing.
func TestALateRemovalIsOfTheOldOne(t *testing.T) {
	s := policystore.New(100)
	old := s.Add(sized("a", 1, 60))
	s.Add(sized("a", 1, 60))
	s.Remove(old)
	require.InDelta(t, 0.6, s.Used(), 0.001)
	s.Remove(policystore.Hold(sized("b", 1, 60)))
	require.InDelta(t, 0.6, s.Used(), 0.001)
}

// A list that broke off leaves nothing that takes room.
func TestWhatNothingHoldsTakesNoRoom(t *testing.T) {
	s := policystore.New(100)
	for n := range 3 {
		s.Add(sized("a", n, 30))
	}
	runtime.GC()
	young := []*policystore.Held{s.Add(sized("a", 10, 60)), s.Add(sized("a", 11, 40))}
	require.Equal(t, []bool{true, true}, whole(young...))
	require.InDelta(t, 1, s.Used(), 0.001)
}

// Without a limit nothing is omitted.
func TestNoLimit(t *testing.T) {
	s := policystore.New(0)
	require.Equal(t, []bool{true, true}, whole(s.Add(sized("a", 1, 1<<40)), s.Add(sized("a", 2, 1<<40))))
	require.Zero(t, s.Used())
}

// However many watches, removals and reads there are at once, the policies that are whole
// never take more than the limit, and none is missing once all is quiet.
func TestStoreIsSafeForConcurrentUse(t *testing.T) {
	const limit = 100
	s := policystore.New(limit)
	s.Changed = func(h *policystore.Held) { _ = h.Policy() }
	var running sync.WaitGroup
	var mu sync.Mutex
	held := map[int]*policystore.Held{}
	for worker := range 4 {
		running.Go(func() {
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			for range 500 {
				n := worker*10 + random.IntN(10)
				h := s.Add(sized("a", n, 1+random.IntN(40)))
				mu.Lock()
				old := held[n]
				held[n] = h
				mu.Unlock()
				if old != nil {
					s.Remove(old)
				}
				for _, fitting := range s.Fitting() {
					s.Refill(fitting, func() *policy.Policy { p := *fitting.Policy(); p.Omitted = false; return &p }())
				}
			}
		})
	}
	running.Wait()
	for fitting := s.Fitting(); len(fitting) > 0; fitting = s.Fitting() {
		p := *fitting[0].Policy()
		p.Omitted = false
		s.Refill(fitting[0], &p)
	}
	sum := 0
	for _, h := range held {
		if p := h.Policy(); !p.Omitted {
			sum += p.Size
		}
	}
	require.LessOrEqual(t, sum, limit)
	require.Positive(t, sum)
}
