package chaos

import (
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/test/cluster"
)

// repairedFor is how long all probes must have had their fate again.
const repairedFor = 2 * time.Second

// damages break what the kernel holds for Moat, on both nodes at once. What passes
// or is dropped until it is repaired nobody can prevent; it is counted apart, and
// the repair has a bound.
func (s *suite) damages() {
	for _, d := range []struct {
		name string
		do   func(n *cluster.Node, run runner)
	}{
		{"the sets of isolated pods are flushed", func(n *cluster.Node, _ runner) { s.eachSet(n, "flush", isIsolated) }},
		{"all other sets are flushed", func(n *cluster.Node, _ runner) {
			s.eachSet(n, "flush", func(name string) bool { return !isIsolated(name) })
		}},
		{"a set of peers gets everybody's addresses", s.pollute},
		{"Moat's chains are flushed", func(n *cluster.Node, run runner) { s.eachChain(run, "-F") }},
		{"Moat's hooks are deleted", func(n *cluster.Node, run runner) {
			run("-D", "FORWARD", "1") // they are the first rules
			run("-D", "INPUT", "1")
		}},
		{"the whole table is flushed, chains deleted, sets destroyed", func(n *cluster.Node, _ runner) {
			s.emptyTable(n)
			s.destroySets(n)
		}},
	} {
		s.make(fault{kind: kindDamage, name: d.name, harms: true, do: func(a *attempt) {
			a.damage(s)
			for i, n := range s.Nodes {
				d.do(n, s.runner(i))
			}
			see := s.welcomeEverywhere(a)
			s.awaitRepair(a)
			see()
		}})
	}
	s.make(fault{kind: kindDamage, name: "somebody accepts everything before Moat's hook", harms: true, do: func(a *attempt) {
		a.damage(s)
		for i := range s.Nodes {
			s.runner(i)("-I", "FORWARD", "-j", "ACCEPT")
		}
		s.awaitRepair(a)
		for i := range s.Nodes {
			s.runner(i)("-D", "FORWARD", "-j", "ACCEPT")
		}
	}})
	s.awaitRecovery()
}

// awaitRepair waits until no probe meets the damage any more, or its repair is late,
// which the probes then say. It must have been felt, or the repair proves nothing.
func (s *suite) awaitRepair(a *attempt) {
	s.t.Helper()
	for end := a.since + repairWithin + repairedFor; s.wire.now() < end; s.sleep(100 * time.Millisecond) {
		if last := s.felt(a); last > 0 && s.wire.now() > last+repairedFor {
			return
		}
	}
	require.NotZero(s.t, s.felt(a), "nothing was damaged")
}

// felt returns when the last probe was sent that met the damage, or zero.
func (s *suite) felt(a *attempt) (last time.Duration) {
	for st, from := range a.damaged {
		_, at := st.wrong(from, st.position()-min(st.position(), 100)) // the last ones may be on their way
		last = max(last, at)
	}
	for _, st := range a.own {
		_, at := st.wrong(0, st.position()-min(st.position(), 100))
		last = max(last, at)
	}
	return last
}

// runner runs iptables and ip6tables on a node's mangle table.
type runner func(args ...string)

// emptyTable puts an empty mangle table in the place of the node's, as a reload of a
// firewall does: in one step, which no agent comes between.
func (s *suite) emptyTable(n *cluster.Node) {
	s.t.Helper()
	for _, program := range programs(backends[slices.Index(s.Nodes, n)]) {
		n.Run(s.t, "sh", "-c", "printf '*mangle\\nCOMMIT\\n' | "+program+"-restore -w 20")
	}
}

func (s *suite) runner(node int) runner {
	return func(args ...string) {
		s.t.Helper()
		for _, program := range programs(backends[node]) {
			s.Nodes[node].Run(s.t, program, append([]string{"-w", "20", "-t", "mangle"}, args...)...)
		}
	}
}

func (s *suite) sets(n *cluster.Node) []string {
	s.t.Helper()
	return strings.Fields(n.Run(s.t, "ipset", "list", "-n"))
}

func isIsolated(name string) bool {
	return strings.HasSuffix(name, "-ingress") || strings.HasSuffix(name, "-egress")
}

func (s *suite) eachSet(n *cluster.Node, command string, which func(name string) bool) {
	s.t.Helper()
	for _, name := range s.sets(n) {
		if strings.HasPrefix(name, "moat-") && which(name) {
			n.Run(s.t, "ipset", command, name)
		}
	}
}

// pollute makes every stranger a peer: it fills the sets of pods' addresses.
func (s *suite) pollute(n *cluster.Node, _ runner) {
	s.t.Helper()
	for _, name := range s.sets(n) {
		for i := range s.Nodes {
			for _, addr := range s.pod(stranger, i).Addrs {
				if strings.HasPrefix(name, "moat-4-p-") == addr.Is4() && strings.Contains(name, "-p-") {
					n.Run(s.t, "ipset", "add", name, addr.String(), "-exist")
				}
			}
		}
	}
}

// eachChain runs a command on every chain of Moat's. A chain is flushed with its
// rules that lead to others, so none is left that leads nowhere.
func (s *suite) eachChain(run runner, command string) {
	s.t.Helper()
	for _, chain := range []string{"MOAT-FORWARD", "MOAT-INPUT", "MOAT-INGRESS", "MOAT-EGRESS"} {
		run(command, chain)
	}
}

// destroySets destroys all of Moat's sets. With nft the kernel lets go of a set a
// moment after its rules, and the agent may be at work already.
func (s *suite) destroySets(n *cluster.Node) {
	s.t.Helper()
	s.sleep(50 * time.Millisecond)
	for _, name := range s.sets(n) {
		if strings.HasPrefix(name, "moat-") {
			s.try(n, "ipset", "destroy", name)
		}
	}
}
