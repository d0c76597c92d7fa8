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
	s.unguarded()
	for _, n := range s.Nodes {
		n.RemoveRules(s.t)
	}
	s.requireOpen("negative control: without agents and rules")
}

// unguarded proves that pods which start without guard are reached before their rules
// are there. It leaves no agents.
func (s *suite) unguarded() {
	s.t.Helper()
	s.StopAgents(s.t)
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
	s.StopAgents(s.t)
}
