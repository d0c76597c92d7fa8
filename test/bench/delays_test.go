package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/test/bench/results"
	"github.com/moat-dev/moat/test/cluster"
)

// Times of one sample.
const (
	// changeWithin is when a change that still isn't in force fails the run.
	changeWithin = 2 * time.Minute
	// quiet is how long nothing has to pass for the last datagram to be the last, and
	// quietDatagrams how many have to be sent meanwhile: on a busy machine the sender
	// may be the one that is quiet.
	quiet          = 250 * time.Millisecond
	quietDatagrams = 150
	// settle is the wait between two changes, and half of it at most more, so that
	// they aren't in step with anything that the agent does at intervals.
	settle = 200 * time.Millisecond
	// inTurn is how many samples of one cluster come before those of the next: few, so
	// that all have the same minutes, and more than one, since a cluster that others kept
	// out of the processors' caches for seconds is slower than one by itself.
	inTurn = 5
	// look is how often the bench looks for what arrived. It is no part of a
	// delay: arrivals carry their times.
	look = 2 * time.Millisecond
)

// opens makes a change and returns how long it took from just before the write to the
// API until the first datagram that was sent since then arrived.
func (s *stream) opens(t testing.TB, change func()) time.Duration {
	t.Helper()
	pause()
	s.clear()
	start := since()
	change()
	var first arrival
	require.Eventually(t, func() (ok bool) {
		first, ok = s.firstSince(start)
		return ok
	}, changeWithin, look, "nothing passes")
	return first.received - start
}

// closes makes a change and returns how long it took from just before the write to the
// API until the last datagram that passes was sent.
func (s *stream) closes(t testing.TB, change func()) time.Duration {
	t.Helper()
	pause()
	s.clear()
	start := since()
	change()
	written, number := since(), s.sent.Load()
	require.Eventually(t, func() bool {
		last, _ := s.last()
		return since()-max(last.received, written) > quiet && s.sent.Load()-max(last.number, number) > quietDatagrams
	}, changeWithin, look, "datagrams pass for ever")
	last, ok := s.last()
	if !ok {
		return 0
	}
	return max(0, last.sent-start)
}

func pause() { time.Sleep(settle + rand.N(settle/2)) }

// pair is a change of a scene and its reverse, and their delays.
type pair struct {
	scene              *scene
	packets            *stream
	opens, closes      string // kinds
	open, close        func()
	opened, closed     []time.Duration
	write              string // kind: the API server's own time
	written            []time.Duration
	mean               string // kind: the agent's own time
	restores, requests string // kinds: of one change
	before             cluster.Metrics
	start              time.Time
}

// labels lets the visitor in by its label.
func (s *scene) labels(t testing.TB) *pair {
	return &pair{
		scene: s, packets: startStream(t, s.visitor, s.target),
		opens: results.LabelOpens, closes: results.LabelCloses, write: results.LabelWrite, mean: results.LabelInAgent,
		restores: results.LabelRestores, requests: results.LabelRequests,
		open:  func() { s.setApp(t, "visitor", memberApp) },
		close: func() { s.setApp(t, "visitor", strangerApp) },
	}
}

// policies lets the inspector in by a policy.
func (s *scene) policies(t testing.TB) *pair {
	return &pair{
		scene: s, packets: startStream(t, s.inspector, s.target),
		opens: results.PolicyOpens, closes: results.PolicyCloses, write: results.PolicyWrite, mean: results.PolicyInAgent,
		restores: results.PolicyRestores, requests: results.PolicyRequests,
		open:  func() { s.createPolicy(t) },
		close: func() { s.deletePolicy(t) },
	}
}

// measureDelays takes the samples of changes of labels and policies, inTurn of one
// cluster and then of the next: how fast a machine is may change by the minute. It
// returns the figures of each cluster.
func (o *options) measureDelays(t testing.TB, scenes []*scene) [][]results.Figure {
	t.Helper()
	figures := make([][]results.Figure, len(scenes))
	for _, kind := range []struct {
		name    string
		changes func(*scene, testing.TB) *pair
	}{{"labels", (*scene).labels}, {"policies", (*scene).policies}} {
		var pairs []*pair
		for _, s := range scenes {
			pairs = append(pairs, kind.changes(s, t))
		}
		for _, p := range pairs {
			p.before, p.start = p.scene.node.Metrics(t), time.Now()
		}
		taken := 0
		detail := func() string { return fmt.Sprintf("%d of %d samples", taken, o.samples) }
		during("changing "+kind.name, detail, func() {
			for taken < o.samples {
				round := min(inTurn, o.samples-taken)
				for _, p := range pairs {
					p.sample(t, round)
				}
				taken += round
			}
		})
		for i, p := range pairs {
			figures[i] = append(figures[i], p.figures(t)...)
			p.packets.stop()
		}
	}
	for i, s := range scenes {
		figures[i] = append(figures[i], results.Number(results.MemoryStalls, 100*results.Quantile(s.stalls, 0.5)))
	}
	return figures
}

// sample takes samples of the change and its reverse, while kubelets write.
func (p *pair) sample(t testing.TB, samples int) {
	t.Helper()
	p.scene.stalls = append(p.scene.stalls, memoryStalls(t))
	defer p.scene.runKubelets(t)()
	for range samples {
		p.opened = append(p.opened, p.packets.opens(t, p.timed(p.open)))
		p.closed = append(p.closed, p.packets.closes(t, p.timed(p.close)))
	}
}

// timed also takes the time that the API server needs to answer.
func (p *pair) timed(change func()) func() {
	return func() {
		start := time.Now()
		change()
		p.written = append(p.written, time.Since(start))
	}
}

// figures returns the delays, and what the agent counted meanwhile.
func (p *pair) figures(t testing.TB) []results.Figure {
	t.Helper()
	idle := p.scene.background
	after, took := p.scene.node.Metrics(t), time.Since(p.start)
	changes := float64(len(p.opened) + len(p.closed))
	delta := func(name string) float64 { return after.Sum(name) - p.before.Sum(name) }
	figures := []results.Figure{
		results.Milliseconds(p.opens, p.opened),
		results.Milliseconds(p.closes, p.closed),
		results.Milliseconds(p.write, p.written),
		results.Number(p.restores, max(0, delta(restoresMetric)-idle.restores*took.Seconds())/changes),
		results.Number(p.requests, max(0, delta(requestsMetric)-idle.requests*took.Seconds())/changes),
	}
	if n := delta(toKernelMetric + "_count"); n > 0 {
		figures = append(figures, results.Number(p.mean, 1000*delta(toKernelMetric+"_sum")/n))
	}
	return figures
}
