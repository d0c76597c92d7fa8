package chaos

import (
	"fmt"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	kindControl = "control"

	// cutWithin is the promise for connections that a policy forbids.
	cutWithin = time.Second
)

// requireOpen requires that every probe arrives, the forbidden ones too: otherwise a
// broken network would look like enforcement.
func (s *suite) requireOpen(when string) {
	s.t.Helper()
	s.sleep(time.Second) // neighbours are found meanwhile
	from := s.positions()
	s.sleep(time.Second)
	to := s.positions()
	s.sleep(settleWithin / 3)
	for _, st := range s.streams {
		require.NotZero(s.t, to[st]-from[st], "no probes were sent")
		wrong, _ := st.wrong(from[st], to[st])
		if st.verdict == forbidden {
			require.Equal(s.t, to[st]-from[st], wrong, "%s: %s: not all probes passed", when, st.name)
		} else {
			require.Zero(s.t, wrong, "%s: %s: probes are missing", when, st.name)
		}
	}
}

// controls prove that the suite sees what it looks for: with a rule that drops all,
// every allowed probe is missing; without agents and rules, every forbidden one
// arrives.
func (s *suite) controls() {
	s.t.Helper()
	from := s.positions()
	for i := range s.Nodes {
		s.runner(i)("-A", "PREROUTING", "-j", "DROP")
	}
	dropped := s.positions()
	s.sleep(time.Second)
	to := s.positions()
	for i := range s.Nodes {
		s.runner(i)("-D", "PREROUTING", "-j", "DROP")
	}
	s.sleep(settleWithin / 3)
	for _, st := range s.streams {
		if st.verdict == allowed {
			wrong, _ := st.wrong(dropped[st], to[st])
			require.Equal(s.t, to[st]-dropped[st], wrong, "negative control: %s: probes that were dropped aren't missed", st.name)
		}
		wrong, _ := st.wrong(from[st], to[st])
		require.Equal(s.t, st.verdict == allowed, wrong > 0, "negative control: %s", st.name)
	}
	s.darkens()
	s.unguarded()
	for _, n := range s.Nodes {
		n.RemoveRules(s.t)
	}
	s.requireOpen("negative control: without agents and rules")
}

// darkens proves that newcomers without network are counted. On one node a rule drops
// what is theirs: from networkWithin on they are darkened. On the other there is no agent,
// and the guard closes them: that is counted apart, but would be darkened as well if there
// had been an agent. Once there is one the newcomer has its network in time.
func (s *suite) darkens() {
	s.t.Helper()
	drop := []string{"PREROUTING", "!", "-i", "lo", "-j", "DROP"}
	s.runner(0)(append([]string{"-A"}, drop...)...)
	r := s.newcomerFor(0, networkWithin+lookLonger, func() {})
	s.runner(0)(append([]string{"-D"}, drop...)...)
	require.NotZero(s.t, r.Darkened, "negative control: newcomers whose packets are dropped aren't darkened")
	require.Equal(s.t, r.Newcoming, r.Early+r.Darkened, "negative control: a probe of a newcomer was dropped and isn't missed")

	s.agents.kill(s.t, 1)
	r = s.newcomerFor(1, networkWithin+lookLonger, func() { s.agents.start(s.t, 1) })
	require.Zero(s.t, r.Darkened+r.Lost, "negative control: a newcomer has no network after its agent came: %v", r.Streams)
	require.NotZero(s.t, r.WithoutAgent, "negative control: a guard without an agent doesn't close newcomers")
	always := &attendance{}
	always.comes(0)
	for _, w := range r.windows {
		w.stream.network.agent = always
	}
	r.tally()
	require.NotZero(s.t, r.Darkened, "negative control: newcomers that are closed beside an agent aren't darkened")
}

// newcomerFor starts a newcomer, does something after a while, waits until it has its
// network, or should have had it, and returns what became of its probes.
func (s *suite) newcomerFor(node int, d time.Duration, then func()) *result {
	s.t.Helper()
	a := &attempt{}
	p := s.newcomer(a, node)
	s.sleep(d)
	then()
	p.see(a)
	s.settle(a.extra)
	for _, do := range a.after {
		do()
	}
	r := &result{attempt: a, windows: a.extra}
	r.tally()
	return r
}

// unguarded proves that pods which start without guard are reached before their rules
// are there. It leaves no agents.
func (s *suite) unguarded() {
	s.t.Helper()
	s.agents.stop(s.t)
	for i := range s.Nodes {
		s.agents.flags[i] = append(s.agents.flags[i], "--pod-start-guard=Off")
		s.agents.start(s.t, i)
	}
	s.AwaitAgents(s.t)
	var reached uint64
	for i := range s.Nodes {
		a := &attempt{}
		p := s.begin(a, fmt.Sprintf("unguarded-%d", i), i)
		s.sleep(time.Second)
		p.end(a)
		for _, w := range a.extra {
			count, _ := w.stream.wrong(w.from, w.to)
			reached += count
		}
		for _, do := range a.after {
			do()
		}
	}
	require.NotZero(s.t, reached, "negative control: pods that start without guard aren't reached either")
	s.agents.stop(s.t)
}
