package chaos

import (
	"fmt"
	"time"
)

// freezes stop the agents of all nodes in their tracks, as a node that has no processor
// or no memory to spare does, and let them go on. Nothing changes for pods that run. A
// newcomer waits until the agents go on, and so does the repair of damage.
func (s *suite) freezes() {
	s.make(fault{kind: kindFrozen, name: fmt.Sprintf("all agents are frozen for %s", s.size.held), do: func(a *attempt) {
		s.freezeAll()
		see := s.welcomeEverywhere(a)
		s.sleep(s.size.held)
		s.thawAll()
		see()
		s.awaitReady()
	}})
	s.make(fault{kind: kindFrozen, name: "the whole table is flushed while agents are frozen", harms: true, do: func(a *attempt) {
		s.freezeAll()
		a.damage(s)
		for _, n := range s.Nodes {
			s.emptyTable(n)
		}
		s.sleep(time.Second)
		s.thawAll()
		a.since = s.wire.now() // Nobody repairs before.
		s.awaitRepair(a)
		s.awaitReady()
	}})
}

func (s *suite) freezeAll() {
	s.t.Helper()
	for i := range s.Nodes {
		s.agents.freeze(s.t, i)
	}
}

func (s *suite) thawAll() {
	s.t.Helper()
	for i := range s.Nodes {
		s.agents.thaw(s.t, i)
	}
}
