package chaos

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// newcomer is the role of pods that start and that nothing isolates.
const newcomer = "newcomer"

// Bounds.
const (
	// networkWithin is the promise for pods that nothing isolates: they have their
	// network so soon after their start, and after the return of their node's agent.
	networkWithin = 5 * time.Second

	// lookLonger is how long a newcomer without network is watched after that.
	lookLonger = time.Second

	// steady is how many probes of each kind must arrive one after the other before a
	// newcomer counts as one that has its network.
	steady = 20

	// starvedFor is how long an agent may have waited for a processor before it is the
	// machine's fault that a newcomer has no network.
	starvedFor = networkWithin / 2

	// newcomerStreams is how many streams a newcomer has: its time without network is
	// that part of its missing probes.
	newcomerStreams = 4
)

// attendance says when a node had a living agent. It is safe for concurrent use.
type attendance struct {
	mu      sync.Mutex
	changes []time.Duration // the agent comes, goes, comes, …
}

// comes notes that there is an agent from now on, and goes that there is none.
func (a *attendance) comes(now time.Duration) { a.change(now, 0) }
func (a *attendance) goes(now time.Duration)  { a.change(now, 1) }

func (a *attendance) change(now time.Duration, parity int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.changes)%2 == parity {
		a.changes = append(a.changes, now)
	}
}

// since returns when the agent came that was there at a time, or false if none was.
func (a *attendance) since(when time.Duration) (time.Duration, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, exact := slices.BinarySearch(a.changes, when)
	if exact {
		n++
	}
	if n%2 == 0 {
		return 0, false
	}
	return a.changes[n-1], true
}

// network is what a pod that nothing isolates may expect.
type network struct {
	begun time.Duration // when the pod started
	agent *attendance   // of its node
}

// wait returns how long the pod and an agent had been there together at a time, or
// false if there was no agent.
func (n network) wait(when time.Duration) (time.Duration, bool) {
	since, there := n.agent.since(when)
	return when - max(since, n.begun), there
}

// addNewcoming counts the probes of a newcomer before its network and returns the number
// of the first one after that.
func (r *result) addNewcoming(w window) uint64 {
	first := w.owed()
	r.Newcoming += first - w.from
	var darkened uint64
	for n := w.from; n < first; n++ {
		wait, there := w.stream.network.wait(w.stream.sentAt(n))
		switch {
		case !there:
			r.WithoutAgent++
		case wait < networkWithin:
			r.Early++
		default:
			darkened++
		}
		if there {
			r.Network = max(r.Network, wait.Seconds())
		}
	}
	r.Darkened += darkened
	if darkened > 0 {
		r.Streams = append(r.Streams, fmt.Sprintf("%d of %s darkened", darkened, w.stream.name))
	}
	return first
}

// newcomers is what is printed of the pods that nothing isolates.
func (r *result) newcomers() string {
	if r.Newcoming == 0 {
		return ""
	}
	return fmt.Sprintf("   darkened %d of %d (%d without an agent, network after %.1fs)", r.Darkened, r.Newcoming, r.WithoutAgent, r.Network)
}

// newcomer starts a pod that nothing isolates, and lets it and a pod of the other node
// talk.
func (s *suite) newcomer(a *attempt, node int) *starting {
	s.t.Helper()
	s.came++
	p := s.startPod(a, newcomer, fmt.Sprintf("%s-%d", newcomer, s.came), node)
	p.network, p.starved = network{s.wire.now(), s.agents.attendances[node]}, s.agents.starved(node)
	peer := s.pod(open, (node+1)%len(s.Nodes))
	p.allowed = []*stream{
		p.newcoming("tcp", ruleset.IPv4, p.pod, peer),
		p.newcoming("udp", ruleset.IPv6, p.pod, peer),
		p.newcoming("tcp", ruleset.IPv6, peer, p.pod),
		p.newcoming("udp", ruleset.IPv4, peer, p.pod),
	}
	return p
}

// newcoming starts a stream of fresh connections from or to a newcomer.
func (p *starting) newcoming(protocol string, family ruleset.Family, from, to *endpoint) *stream {
	st := newStream(newcoming, "new "+strings.ToUpper(protocol), from, to)
	st.network = p.network
	return p.suite.wire.add(st, freshFlow(protocol, family, from, to), true)
}

// hasNetwork reports whether probes of each kind arrive.
func (p *starting) hasNetwork() bool {
	for _, st := range p.allowed {
		position := st.position()
		if position-st.firstThrough(0, position) < steady {
			return false
		}
	}
	return true
}

// see waits until a newcomer has its network, or should have had it, and ends it.
func (p *starting) see(a *attempt) {
	s := p.suite
	s.t.Helper()
	for !p.hasNetwork() {
		if wait, there := p.network.wait(s.wire.now()); there && wait > networkWithin+lookLonger {
			break
		}
		s.sleep(10 * time.Millisecond)
	}
	if d := s.agents.starved(p.node).since(p.starved); d >= starvedFor {
		a.late = fmt.Sprintf("the agent waited for a processor for %s", d.Round(time.Millisecond))
	}
	p.end(a)
}

// welcome starts a newcomer and returns what sees it.
func (s *suite) welcome(a *attempt, node int) (see func()) {
	s.t.Helper()
	p := s.newcomer(a, node)
	return func() { p.see(a) }
}

// welcomeEverywhere is welcome on each node.
func (s *suite) welcomeEverywhere(a *attempt) (see func()) {
	s.t.Helper()
	var all []func()
	for i := range s.Nodes {
		all = append(all, s.welcome(a, i))
	}
	return func() {
		for _, see := range all {
			see()
		}
	}
}

func TestAttendance(t *testing.T) {
	a := &attendance{}
	a.goes(1) // it isn't there
	a.comes(10)
	a.comes(15) // it is there
	a.goes(20)
	a.comes(30)
	for when, want := range map[time.Duration]time.Duration{9: -1, 10: 10, 19: 10, 20: -1, 29: -1, 30: 30, 100: 30} {
		since, there := a.since(when)
		require.Equal(t, want >= 0, there, when)
		if there {
			require.Equal(t, want, since, when)
		}
	}
}

// Probes of a newcomer are darkened from networkWithin on, with an agent there; the same
// ones are counted apart where there was none, and lost once others had arrived.
func TestNewcomersAreCounted(t *testing.T) {
	const second, probes = 1000, 20_000 // a probe each millisecond
	for _, c := range []struct {
		name                                string
		comes, goes                         []time.Duration
		first                               uint64 // that arrives
		withoutAgent, early, darkened, lost uint64
	}{
		{"at once", []time.Duration{0}, nil, 0, 0, 0, 0, 1},
		{"in time", []time.Duration{0}, nil, 4 * second, 0, 4 * second, 0, 1},
		{"late", []time.Duration{0}, nil, 7 * second, 0, 5 * second, 2 * second, 1},
		{"never", []time.Duration{0}, nil, probes, 0, 5 * second, 15 * second, 0},
		{"no agent", nil, nil, probes, probes, 0, 0, 0},
		{"an agent that comes", []time.Duration{8 * time.Second}, nil, 10 * second, 8 * second, 2 * second, 0, 1},
		{"an agent that comes back", []time.Duration{0, 8 * time.Second}, []time.Duration{2 * time.Second}, 14 * second, 6 * second, 7 * second, second, 1},
	} {
		agent := &attendance{}
		for i, at := range c.comes {
			agent.comes(at)
			if i < len(c.goes) {
				agent.goes(c.goes[i])
			}
		}
		st := &stream{verdict: newcoming, network: network{agent: agent}, packet: newPacket(testFlow, 1)}
		for n := range uint64(probes) {
			st.next(time.Duration(n) * time.Millisecond)
			if n >= c.first && n != c.first+1 {
				st.arrive(n)
			}
		}
		r := &result{attempt: &attempt{}, windows: []window{{st, 0, probes}}}
		r.tally()
		const within = timeEvery // probes are timed to 16 ms
		require.InDelta(t, c.withoutAgent, r.WithoutAgent, within, c.name)
		require.InDelta(t, c.early, r.Early, within, c.name)
		require.InDelta(t, c.darkened, r.Darkened, within, c.name)
		require.Equal(t, c.lost, r.Lost, c.name)
		require.Equal(t, c.first, r.WithoutAgent+r.Early+r.Darkened, c.name)
	}
}
