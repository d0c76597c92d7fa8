package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Bounds.
const (
	// settleWithin is how long probes may be on their way: the kernel delivers them
	// at once, a busy machine reads them later.
	settleWithin = 5 * time.Second

	// tries is how often a fault is made while the machine loses packets of its own.
	tries = 3

	// repairWithin is the promise for what others do to Moat's rules and sets. Nobody
	// can prevent what passes or is dropped before.
	repairWithin = 5 * time.Second
)

// suite makes faults, one after the other, and accounts for the probes meanwhile.
type suite struct {
	*scene
	t       *testing.T
	ctx     context.Context
	size    size
	random  *rand.Rand
	agents  agents
	churn   *churn
	results []*result
	seen    map[*stream]uint64 // up to where probes are accounted for
	lost    disturbance        // of the machine, up to there
	came    int                // pods that nothing isolates
	gaps    uint16             // connections that were opened while a node had no rules
	ended   bool               // as it should
}

// fault is what is done to the cluster.
type fault struct {
	kind string // what there may be several of
	name string
	do   func(a *attempt)
	// harms says that it damages what the kernel holds for Moat.
	harms bool
}

// attempt is a fault that is being made.
type attempt struct {
	damaged map[*stream]uint64 // probes from here on met damage
	since   time.Duration      // when that was
	extra   []window           // of streams of its own
	own     []*stream          // those that meet the damage and still run
	after   []func()           // what is to be done once its probes have arrived
	late    string             // why allowed probes may be lost on a machine that is too busy
}

// damagedFrom returns from which probe of a window on the suite's damage was met: for
// streams that began after it, from the first one on.
func (a *attempt) damagedFrom(w window) (uint64, bool) {
	if a.damaged == nil {
		return 0, false
	}
	from, standing := a.damaged[w.stream]
	if !standing {
		from = w.from
	}
	return from, true
}

// damage notes that what follows is damaged by the suite, and not by Moat.
func (a *attempt) damage(s *suite) { a.damaged, a.since = s.positions(), s.wire.now() }

// positions returns how many probes each stream has sent.
func (s *suite) positions() map[*stream]uint64 {
	positions := map[*stream]uint64{}
	for _, st := range s.streams {
		positions[st] = st.position()
	}
	return positions
}

// sleep waits, and ends the test when it is interrupted.
func (s *suite) sleep(d time.Duration) {
	s.t.Helper()
	select {
	case <-time.After(d):
	case <-s.ctx.Done():
		require.FailNow(s.t, "stopped: "+context.Cause(s.ctx).Error())
	}
}

// upTo is a random duration.
func (s *suite) upTo(d time.Duration) time.Duration { return time.Duration(s.random.Int64N(int64(d))) }

// eventually polls a condition.
func (s *suite) eventually(within time.Duration, condition func() bool, format string, args ...any) {
	s.t.Helper()
	for end := time.Now().Add(within); !condition(); {
		require.True(s.t, time.Now().Before(end), append([]any{format}, args...)...)
		s.sleep(20 * time.Millisecond)
	}
}

// make makes a fault, again where the machine itself lost packets meanwhile, and
// prints what became of the probes.
func (s *suite) make(f fault) {
	s.t.Helper()
	if f.kind != kindControl && !s.size.includes(f.kind) {
		return
	}
	for try := 1; ; try++ {
		r := s.attempt(f)
		r.tally()
		r.print()
		s.results = append(s.results, r)
		if r.missed == 0 || r.Disturbed == "" || try == tries {
			return
		}
		r.Discarded = true
		fmt.Printf("         the machine is too busy (%s): once more\n", r.Disturbed)
	}
}

func (s *suite) attempt(f fault) *result {
	s.t.Helper()
	before, start, a := s.lost, s.wire.now(), &attempt{}
	f.do(a)
	r := &result{Kind: f.kind, Name: f.name, harms: f.harms, attempt: a, windows: a.extra}
	s.lost = s.disturbance()
	for st, end := range s.positions() {
		r.windows = append(r.windows, window{st, s.seen[st], end})
		s.seen[st] = end
	}
	took := s.wire.now() - start
	s.settle(r.windows)
	for _, do := range a.after {
		do()
	}
	r.At, r.Seconds = start.Seconds(), took.Seconds()
	r.Disturbed = s.disturbance().since(before) + a.late
	return r
}

// settle waits until what was sent has arrived, or had time to.
func (s *suite) settle(windows []window) {
	s.t.Helper()
	for end := time.Now().Add(settleWithin); time.Now().Before(end); s.sleep(20 * time.Millisecond) {
		var missing uint64
		for _, w := range windows {
			if w.stream.verdict != forbidden {
				count, _ := w.stream.wrong(w.owed(), w.to)
				missing += count
			}
		}
		if missing == 0 {
			return
		}
	}
}

// disturbance counts what the machine lost on its own.
func (s *suite) disturbance() disturbance {
	s.t.Helper()
	d := disturbance{}
	require.NoError(s.t, d.addSoftnet())
	for _, n := range s.Nodes {
		require.NoError(s.t, d.addNode(n))
	}
	s.wire.addMissed(d)
	return d
}
