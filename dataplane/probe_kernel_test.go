package dataplane

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Probe timing. An answer between namespaces takes well under a millisecond, so a
// silence of silentAfter is a drop; where an answer is due, a busy machine gets
// answerWithin.
const (
	silentAfter  = 150 * time.Millisecond
	answerWithin = 3 * time.Second
)

func patience(want bool) time.Duration {
	if want {
		return answerWithin
	}
	return silentAfter
}

// cluster is the model that the oracle judges by.
func (s *scene) cluster() *policy.Cluster {
	c := &policy.Cluster{Namespaces: s.labels, Ranges: s.model.Ranges()}
	for _, pod := range s.pods {
		c.Pods = append(c.Pods, policy.ParsePod(pod))
	}
	for _, np := range s.policies {
		c.Policies = append(c.Policies, policy.ParseNetworkPolicy(np))
	}
	return c
}

// probe is one flow between two hosts.
type probe struct {
	from, to string
	flow     policy.Flow
}

func (p probe) String() string {
	return fmt.Sprintf("%s -> %s (%s -> %s, protocol %d, port %d)", p.from, p.to, p.flow.Source, p.flow.Destination, p.flow.Protocol, p.flow.Port)
}

// probes lists flows from each host to each, over every family, protocol and
// port.
func (s *scene) probes() []probe {
	var probes []probe
	for from, source := range s.hosts {
		for to, destination := range s.hosts {
			for _, addr := range destination.Addrs {
				own := source.Addr(addr)
				if !own.IsValid() {
					continue
				}
				add := func(protocol policy.Protocol, port uint16) {
					probes = append(probes, probe{from, to, policy.Flow{Source: own, Destination: addr, Protocol: protocol, Port: port}})
				}
				for _, port := range servedPorts {
					add(policy.TCP, port)
				}
				add(policy.UDP, 53)
				add(policy.SCTP, 80)
				add(policy.SCTP, 81)
				add(echoProtocol(addr), 0)
			}
		}
	}
	return probes
}

// send reports whether the probe is answered. want is what is expected.
func (s *scene) send(p probe, want bool) bool {
	from, to := s.hosts[p.from], p.flow.Destination
	switch p.flow.Protocol {
	case policy.TCP:
		return from.TCP(to, p.flow.Port, patience(want))
	case policy.UDP:
		return from.UDP(to, p.flow.Port, patience(want))
	case policy.SCTP:
		return from.SCTP(to, p.flow.Port, patience(want))
	default:
		return from.Ping(to, patience(want))
	}
}

// requireAgreement sends every probe and compares its fate with the oracle's
// verdict. Only this node enforces, so policies of other nodes' pods don't count.
func (s *scene) requireAgreement() {
	s.t.Helper()
	cluster := s.cluster()
	s.requireProbes(s.probes(), func(p probe) bool { return s.enforcedHere(p, cluster.Evaluate(p.flow)) })
}

// requireProbes sends probes and compares their fate with what the oracle says.
func (s *scene) requireProbes(probes []probe, oracle func(probe) bool) {
	s.t.Helper()
	// A probe must not pass as part of the connection of an earlier one that had
	// the same ports.
	require.NoError(s.t, s.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	wrong := make([]string, len(probes))
	var wait sync.WaitGroup
	slots := make(chan struct{}, 64)
	for i, p := range probes {
		wait.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			want := oracle(p)
			if passed := s.send(p, want); passed != want {
				wrong[i] = fmt.Sprintf("%s: passed=%t, want %t", p, passed, want)
			}
		})
	}
	wait.Wait()
	wrong = slices.DeleteFunc(wrong, func(text string) bool { return text == "" })
	require.Empty(s.t, wrong, "%d of %d probes\n%s", len(wrong), len(probes), s.dump())
}

func (s *scene) enforcedHere(p probe, v policy.Verdict) bool {
	here := func(name string) bool {
		pod := s.pods[name]
		return pod != nil && pod.Spec.NodeName == thisNode
	}
	return (!here(p.from) || v.Egress.Allowed()) && (!here(p.to) || v.Ingress.Allowed())
}

func (s *scene) dump() string {
	return s.run(string(s.enforcer.backend)+"-save", "-t", "mangle") + s.run("ipset", "save")
}

func (s *scene) requireTCP(want bool, from, to string, port uint16) {
	s.t.Helper()
	addr := s.hosts[to].Addrs[0]
	require.Equal(s.t, want, s.hosts[from].TCP(addr, port, patience(want)), "TCP %s -> %s:%d\n%s", from, to, port, s.dump())
}

func (s *scene) requirePing(want bool, from, to string) {
	s.t.Helper()
	addr := s.hosts[to].Addrs[0]
	require.Equal(s.t, want, s.hosts[from].Ping(addr, patience(want)), "ping %s -> %s\n%s", from, to, s.dump())
}
