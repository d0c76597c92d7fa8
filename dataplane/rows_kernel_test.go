package dataplane

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
)

// row is one rule of what NetworkPolicy means. Its fates are written by hand from
// the API's text; the oracle has to agree, and so has the kernel.
type row struct {
	name   string
	specs  []string // of policies in namespace default
	passes []string // "from -> to protocol/port" or "from -> to ping", "(IPv4)" or "(IPv6)" to mean one family
	drops  []string
}

// TestSemantics shows each rule with packets, in both families and with both
// backends. The rows are in semantics_rows_kernel_test.go, those that need more
// than policies in TestPodSemantics.
func TestSemantics(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := rowScene(t, backend)
		for _, row := range semanticsRows {
			t.Run(row.name, func(t *testing.T) {
				s.t = t
				s.enforce(row.specs...)
				s.requireFates(row.passes, row.drops)
			})
		}
		t.Run("all of them together", func(t *testing.T) {
			s.t = t
			var specs []string
			for _, row := range semanticsRows {
				specs = append(specs, row.specs...)
			}
			s.enforce(specs...)
			s.requireAgreement()
		})
	})
}

// rowScene has pods of three namespaces on this node and elsewhere, and hosts
// that are no pods. Policies are in namespace default; db and replica are its
// databases.
func rowScene(t *testing.T, backend iptables.Backend) *scene {
	t.Helper()
	s := newScene(t, backend)
	s.namespace("default", nil)
	s.namespace("ours", map[string]string{"project": "myproject"})
	s.namespace("theirs", nil)
	role := func(value string) map[string]string { return map[string]string{"role": value} }
	s.pod("default", "db", role("db"), "10.244.1.10", "fd00:10:244:1::10")
	s.pod("default", "replica", role("db"), "10.244.1.11", "fd00:10:244:1::11")
	s.pod("default", "frontend", role("frontend"), "10.244.1.12", "fd00:10:244:1::12")
	s.pod("default", "batch", role("batch"), "10.244.1.13", "fd00:10:244:1::13")
	s.pod("default", "worker", role("frontend"), "10.244.2.10", "fd00:10:244:2::10")
	s.pod("ours", "project", role("frontend"), "10.244.1.14", "fd00:10:244:1::14")
	s.pod("ours", "other", role("batch"), "10.244.2.11", "fd00:10:244:2::11")
	s.pod("theirs", "stranger", role("frontend"), "10.244.2.12", "fd00:10:244:2::12")
	s.host("office", s.node.AddRemote(t, "172.17.0.10", "2001:db8:17::10"))
	s.host("excepted", s.node.AddRemote(t, "172.17.1.10", "2001:db8:17:1::10"))
	s.serves("db", 80)
	s.serves("replica", 81)
	return s
}

// serves changes the port that the pod serves under its names.
func (s *scene) serves(name string, port int32) {
	pod := s.pods[name].DeepCopy()
	pod.Spec.Containers = containersServing(port)
	s.update(pod)
}

// enforce makes these the only policies, and syncs.
func (s *scene) enforce(specs ...string) {
	s.t.Helper()
	for name := range s.policies {
		s.remove(name)
	}
	for i, spec := range specs {
		s.apply(fmt.Sprintf("metadata: {name: policy-%d}\nspec: %s", i, spec))
	}
	s.sync()
}

// requireFates sends what has to pass and what has to be dropped, and asks the
// oracle the same.
func (s *scene) requireFates(passes, drops []string) {
	s.t.Helper()
	require.NoError(s.t, s.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	cluster := s.cluster()
	var wait sync.WaitGroup
	var mu sync.Mutex
	var wrong []string
	expect := func(texts []string, want bool) {
		for _, text := range texts {
			for _, p := range s.parseProbes(text) {
				require.Equal(s.t, want, s.enforcedHere(p, cluster.Evaluate(p.flow)), "the oracle on %s", p)
				wait.Go(func() {
					if s.send(p, want) != want {
						mu.Lock()
						defer mu.Unlock()
						wrong = append(wrong, fmt.Sprintf("%s (%s): passed=%t, want %t", text, p, !want, want))
					}
				})
			}
		}
	}
	expect(passes, true)
	expect(drops, false)
	wait.Wait()
	require.Empty(s.t, wrong, "%s", s.dump())
}

// parseProbes reads a fate's text: one probe for each family.
func (s *scene) parseProbes(text string) []probe {
	s.t.Helper()
	fields := strings.Fields(text)
	require.GreaterOrEqual(s.t, len(fields), 4, text)
	require.Equal(s.t, "->", fields[1], text)
	from, to := fields[0], fields[2]
	require.Contains(s.t, s.hosts, from, text)
	require.Contains(s.t, s.hosts, to, text)
	var probes []probe
	for _, addr := range s.hosts[to].Addrs {
		if len(fields) > 4 && fields[4] != familyText(addr) {
			continue
		}
		if own := s.hosts[from].Addr(addr); own.IsValid() {
			probes = append(probes, probe{from, to, parseFlow(s.t, fields[3], own, addr)})
		}
	}
	require.NotEmpty(s.t, probes, text)
	return probes
}

func familyText(addr netip.Addr) string {
	if addr.Is4() {
		return "(IPv4)"
	}
	return "(IPv6)"
}

func parseFlow(t *testing.T, text string, source, destination netip.Addr) policy.Flow {
	t.Helper()
	flow := policy.Flow{Source: source, Destination: destination}
	name, port, _ := strings.Cut(text, "/")
	switch name {
	case "tcp":
		flow.Protocol = policy.TCP
	case "udp":
		flow.Protocol = policy.UDP
	case "sctp":
		flow.Protocol = policy.SCTP
	case "ping":
		flow.Protocol = echoProtocol(destination)
		return flow
	default:
		require.Fail(t, "a probe of an unknown protocol", text)
	}
	_, err := fmt.Sscan(port, &flow.Port)
	require.NoError(t, err, text)
	return flow
}

func echoProtocol(addr netip.Addr) policy.Protocol {
	if addr.Is4() {
		return policy.ICMP
	}
	return policy.ICMPv6
}
