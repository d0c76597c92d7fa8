package chaos

import (
	"fmt"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/cluster"
)

// starter is the role of the pods that start: open pods may reach them, and they may
// reach open pods.
const starter = "starter"

// startProbes is how many probes of each kind follow a pod's start.
const startProbes = 30

// heldAtMost is how long an agent holds a start. Then the pod starts without its
// rules, and is closed until it has them.
const heldAtMost = 1500 * time.Millisecond

// starts starts pods. Before such a pod has its network, a stranger sends to the
// address that it will have; the pod's own first packets, and the first ones that a
// peer sends, must arrive.
func (s *suite) starts() {
	for i := range s.size.starts {
		s.make(fault{kind: kindStart, name: fmt.Sprintf("pod start %d of %d", i+1, s.size.starts), do: func(a *attempt) {
			p := s.begin(a, fmt.Sprintf("start-%d", i), i%len(s.Nodes))
			p.probeAllowed()
			p.end(a)
		}})
	}
	for i := range s.size.newcomers {
		s.make(fault{kind: kindStart, name: fmt.Sprintf("start %d of %d of a pod that nothing isolates", i+1, s.size.newcomers), do: func(a *attempt) {
			s.welcome(a, i%len(s.Nodes))()
		}})
	}
	for i := range max(1, s.size.starts/20) {
		s.make(fault{kind: kindStart, name: fmt.Sprintf("pod start without an agent %d", i+1), do: func(a *attempt) {
			node := i % len(s.Nodes)
			s.agents.kill(s.t, node)
			p, see := s.begin(a, fmt.Sprintf("alone-%d", i), node), s.welcome(a, node)
			s.sleep(time.Second)
			s.agents.start(s.t, node)
			see()
			s.awaitReady()
			p.probeAllowed()
			p.end(a)
		}})
	}
}

// starting is a pod that starts.
type starting struct {
	suite  *suite
	node   int
	object *corev1.Pod
	pod    *endpoint

	forbidden, allowed []*stream
	network            network    // of a newcomer
	starved            starvation // of its node's agent, when it started
}

// begin starts an isolated pod up to where its containers run.
func (s *suite) begin(a *attempt, name string, node int) *starting {
	s.t.Helper()
	return s.startPod(a, starter, name, node)
}

// startPod starts a pod of a role up to where its containers run. A stranger sends to an
// isolated one before it has a network.
func (s *suite) startPod(a *attempt, role, name string, node int) *starting {
	s.t.Helper()
	p := &starting{suite: s, node: node, object: podObject(role, name)}
	s.StartPod(s.t, s.Nodes[node], p.object, cluster.Start{
		Network: func(host *nodetest.Host, addrs []netip.Addr) {
			p.pod = s.wire.attach(s.t, newEndpoint(s.t, host, name))
			a.after = append(a.after, func() { s.wire.detach(p.pod) })
			p.pod.Addrs = addrs
			if role == newcomer {
				return
			}
			p.forbidden = []*stream{
				s.probe(forbidden, "udp", ruleset.IPv4, s.pod(stranger, node), p.pod),
				s.probe(forbidden, "tcp", ruleset.IPv6, s.pod(stranger, node), p.pod),
			}
		},
		Sandbox: func(addrs []netip.Addr) {
			begun := time.Now()
			s.runtimes[node].run(s.t, p.object, addrs)
			if held := time.Since(begun); held >= heldAtMost {
				a.late = fmt.Sprintf("the start was held for %s, and then went on", held.Round(time.Millisecond))
			}
		},
	})
	return p
}

// probeAllowed lets the pod and a pod of the other node talk.
func (p *starting) probeAllowed() {
	p.suite.t.Helper()
	s := p.suite
	peer := s.pod(open, (p.node+1)%len(s.Nodes))
	p.allowed = []*stream{
		s.probe(allowed, "tcp", ruleset.IPv4, p.pod, peer),
		s.probe(allowed, "udp", ruleset.IPv6, p.pod, peer),
		s.probe(allowed, "tcp", ruleset.IPv6, peer, p.pod),
		s.probe(allowed, "udp", ruleset.IPv4, peer, p.pod),
	}
	for _, st := range p.allowed {
		s.eventually(settleWithin, func() bool { return st.position() >= startProbes }, "%s: no probes", st.name)
	}
}

// end stops the pod. Its peers stop before it; the stranger doesn't.
func (p *starting) end(a *attempt) {
	s := p.suite
	s.t.Helper()
	s.wire.remove(p.allowed...)
	s.sleep(answerWithin)
	s.runtimes[p.node].stop(s.t, p.object)
	s.DeletePod(s.t, p.object.Namespace, p.object.Name)
	s.wire.remove(p.forbidden...)
	for _, st := range append(p.forbidden, p.allowed...) {
		a.extra = append(a.extra, window{st, 0, st.position()})
	}
}

// answerWithin is how long the last probes and their answers need on their way, while
// the pod still has a network.
const answerWithin = 20 * time.Millisecond
