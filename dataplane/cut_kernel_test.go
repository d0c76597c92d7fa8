package dataplane

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/kernel/conntrack"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/policy"
)

const (
	// cutWithin is what is promised.
	cutWithin = time.Second

	// quietFor is how long nothing may pass after that.
	quietFor = 500 * time.Millisecond

	// syncTakes is what the syncs and looks of a change may take together without
	// excuse.
	syncTakes = 200 * time.Millisecond
)

// runAgent syncs whenever something changes, as the agent does, until the function
// that it returns is called.
func (s *scene) runAgent() (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.node.Do(func() error {
			defer s.enforcer.cutter.Start(ctx)()
			for {
				start := time.Now()
				if err := s.enforcer.sync(ctx, s.model); err != nil && ctx.Err() == nil {
					return err
				}
				s.enforcer.metrics.Synced(start, time.Time{}, nil)
				select {
				case <-ctx.Done():
					return nil
				case <-s.model.Changed:
				case <-s.inspects:
					s.enforcer.inspect()
				}
			}
		})
	}()
	return func() {
		cancel()
		require.NoError(s.t, <-ended)
	}
}

// restartAfter stops the agent and starts another one, which knows nothing.
func (s *scene) restartAfter(stop func()) func() {
	stop()
	s.restart(s.enforcer.requested)
	return s.runAgent()
}

// streams are connections by what they are.
type streams map[string]*nodetest.Stream

// lastPort makes every stream a class of its own.
var lastPort atomic.Uint32

// port returns a port of the address that no other stream has.
func port(addr netip.Addr) netip.AddrPort {
	return netip.AddrPortFrom(addr, uint16(20000+lastPort.Add(1)%10000))
}

// open opens connections of every kind in both families.
func (all streams) open(t *testing.T, name string, client, server *nodetest.Host) {
	t.Helper()
	for _, addr := range server.Addrs {
		all.openTo(t, name, client, server, addr, addr)
	}
}

// openTo opens connections of every kind to an address of the server, where the server
// may write it in another way: a zone is a name that each side has for the link.
func (all streams) openTo(t *testing.T, name string, client, server *nodetest.Host, addr, there netip.Addr) {
	t.Helper()
	kind := func(kind string) string { return fmt.Sprintf("%s %s %s", name, kind, addr) }
	ends := func() (to, target netip.AddrPort) {
		to = port(addr)
		return to, netip.AddrPortFrom(there, to.Port())
	}
	to, target := ends()
	all[kind("TCP")] = nodetest.StreamTCP(t, client, server, to, target)
	to, target = ends()
	all[kind("UDP")] = nodetest.StreamUDP(t, client, server, to, target)
	to, target = ends()
	all[kind("UDP, silent client")] = nodetest.StreamDown(t, client, server, to, target)
	all[kind("ping")] = nodetest.StreamPing(t, client, addr)
}

// each calls a function with each direction that something is sent in.
func (all streams) each(do func(name string, c *nodetest.Count)) {
	for name, s := range all {
		if s.Up.Came() > 0 {
			do(name+" up", &s.Up)
		}
		do(name+" down", &s.Down)
	}
}

// requireCut makes a change and requires that the streams are cut in time and stay so.
func (all streams) requireCut(s *scene, change func()) {
	s.t.Helper()
	changed, before, waited := time.Now(), s.enforcer.syncing(), waitedForProcessor(s.t)
	change()
	var last time.Time
	var name string
	for time.Since(changed) < cutWithin || time.Since(last) < quietFor {
		all.each(func(stream string, c *nodetest.Count) {
			if c.Last().After(last) {
				last, name = c.Last(), stream
			}
		})
		if time.Since(changed) > 20*cutWithin {
			require.FailNow(s.t, "not cut", "%s\n%s", name, s.dump())
		}
		time.Sleep(time.Millisecond)
	}
	// Where syncs and looks take longer than syncTakes, or this process waits for a
	// processor, as it does on a machine that also builds something, the cut is late by as much.
	slow := max(0, s.enforcer.syncing()-before-syncTakes) + max(0, waitedForProcessor(s.t)-waited)
	s.t.Logf("cut after %s, excused %s", last.Sub(changed), slow)
	require.Less(s.t, last.Sub(changed), cutWithin+slow, "%s\n%s", name, s.dump())
}

// waitedForProcessor is how long the threads of this process were ready to run and didn't, in
// all (the second number of schedstat in the kernel's documentation). Those that have ended
// count no more.
func waitedForProcessor(t *testing.T) (all time.Duration) {
	t.Helper()
	threads, err := filepath.Glob("/proc/self/task/*/schedstat")
	require.NoError(t, err)
	for _, thread := range threads {
		text, _ := os.ReadFile(thread) // it may have ended
		var ran, waited int64
		_, _ = fmt.Sscan(string(text), &ran, &waited)
		all += time.Duration(waited)
	}
	return all
}

// requireQuiet requires that the streams, of which the answers are cut, end. What the node
// itself sends is never filtered: it goes on until its congestion window is full, some hundred
// messages, and again, never further, whenever TCP repeats the first of them.
func (all streams) requireQuiet(s *scene) {
	s.t.Helper()
	all.each(func(name string, c *nodetest.Count) {
		require.Eventually(s.t, func() bool { return time.Since(c.Last()) > quietFor }, 20*cutWithin, time.Millisecond, name)
	})
}

// syncing is the time that all syncs and looks took.
func (e *enforcer) syncing() time.Duration {
	registry := prometheus.NewRegistry()
	registry.MustRegister(e.metrics)
	families, _ := registry.Gather()
	var sum float64
	for _, family := range families {
		if name := family.GetName(); name == "moat_sync_duration_seconds" || name == "moat_conntrack_scan_duration_seconds" {
			sum += family.Metric[0].GetHistogram().GetSampleSum()
		}
	}
	return time.Duration(sum * float64(time.Second))
}

// requireFlow requires that all streams flow. TCP sends again only after a while,
// which doubles.
func (all streams) requireFlow(s *scene) {
	s.t.Helper()
	since := time.Now()
	all.each(func(name string, c *nodetest.Count) {
		for !c.Last().After(since) {
			if time.Since(since) > 15*time.Second {
				require.FailNow(s.t, "no flow", "%s\n%s", name, s.dump())
			}
			time.Sleep(time.Millisecond)
		}
	})
}

// requireWhole requires that of what isn't TCP nothing was lost.
func (all streams) requireWhole(s *scene) {
	s.t.Helper()
	all.each(func(name string, c *nodetest.Count) {
		if !strings.Contains(name, "TCP") {
			require.Eventually(s.t, func() bool { return c.Missing() == 0 }, 10*time.Second, 100*time.Microsecond, "%s lost %d", name, c.Missing())
		}
	})
}

// guarded has a pod that friends reach, and others that reach it as long as they are
// in its namespace's project and have a role.
func guarded(t *testing.T, backend iptables.Backend) *scene {
	t.Helper()
	s := newScene(t, backend)
	s.namespace("default", nil)
	s.namespace("ours", project())
	s.pod("default", "server", map[string]string{"role": "db"}, "10.244.1.10", "fd00:10:244:1::10")
	s.pod("ours", "near", map[string]string{"role": "frontend"}, "10.244.1.11", "fd00:10:244:1::11")
	s.pod("ours", "far", map[string]string{"role": "frontend"}, "10.244.2.10", "fd00:10:244:2::10")
	s.pod("default", "friend", map[string]string{"role": "friend"}, "10.244.2.11", "fd00:10:244:2::11")
	s.pod("default", "neighbour", map[string]string{"role": "friend"}, "10.244.1.12", "fd00:10:244:1::12")
	return s
}

func project() map[string]string { return map[string]string{"project": "myproject"} }

func guard(peers string) string {
	return `
metadata: {name: guard}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress, Egress]
  ingress:
  - {from: [` + peers + `]}
  egress:
  - {to: [` + peers + `]}
`
}

const (
	friends = "{podSelector: {matchLabels: {role: friend}}}"
	others  = "{namespaceSelector: {matchLabels: {project: myproject}}, podSelector: {matchLabels: {role: frontend}}}"
)

// openAll opens streams that the guard forbids, and others that it allows.
func openAll(s *scene) (forbidden, allowed streams) {
	s.t.Helper()
	forbidden, allowed = streams{}, streams{}
	forbidden.open(s.t, "far -> server", s.hosts["far"], s.hosts["server"])
	forbidden.open(s.t, "server -> far", s.hosts["server"], s.hosts["far"])
	forbidden.open(s.t, "near -> server", s.hosts["near"], s.hosts["server"])
	allowed.open(s.t, "friend -> server", s.hosts["friend"], s.hosts["server"])
	allowed.open(s.t, "neighbour -> server", s.hosts["neighbour"], s.hosts["server"])
	allowed.open(s.t, "server -> friend", s.hosts["server"], s.hosts["friend"])
	allowed.open(s.t, "node -> server", s.node.Host, s.hosts["server"])
	return forbidden, allowed
}

func (s *scene) setGuard(peers ...string) func() {
	return func() { s.apply(guard(strings.Join(peers, ", "))) }
}

// Whatever change forbids established connections, they are cut in both directions;
// when it is taken back the same connections go on. Those that stay allowed lose
// nothing.
func TestForbiddenConnectionsAreCut(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := guarded(t, backend)
		s.sync() // until there is a rule that asks for it, the kernel tracks no connections
		stop := s.runAgent()
		defer func() { stop() }()
		forbidden, allowed := openAll(s)
		label := func(role string) func() {
			return func() {
				s.label("far", map[string]string{"role": role})
				s.label("near", map[string]string{"role": role})
			}
		}
		for _, c := range []struct {
			name                   string
			before, tighten, relax func()
		}{
			{"a policy is created", func() {}, s.setGuard(friends), func() { s.remove("guard") }},
			{"a policy is edited", s.setGuard(friends, others), s.setGuard(friends), s.setGuard(friends, others)},
			{"pods lose a label", func() {}, label("other"), label("frontend")},
			{"a namespace loses a label", func() {}, func() { s.namespace("ours", nil) }, func() { s.namespace("ours", project()) }},
		} {
			t.Log(c.name)
			c.before()
			forbidden.requireFlow(s)
			forbidden.requireCut(s, c.tighten)
			c.relax()
			forbidden.requireFlow(s)
			allowed.requireFlow(s)
			allowed.requireWhole(s)
			require.Eventually(t, func() bool { return len(s.cut()) == 0 }, 5*time.Second, 50*time.Millisecond)
		}
	})
}

// cut returns the lines of the dump that are about what is cut.
func (s *scene) cut() (members []string) {
	for line := range strings.Lines(s.dump()) {
		if strings.HasPrefix(line, "add moat-") && strings.Contains(line, "-cut") {
			members = append(members, line)
		}
	}
	return members
}

// The rules that cut stay for a while when nothing is cut, and go then.
func TestCutRulesGoWhenNothingIsCut(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := guarded(t, backend)
		s.setGuard(friends)()
		s.sync()
		require.NotContains(t, s.dump(), "-cut")
		now := time.Now()
		class := conntrack.Class{Client: s.hosts["far"].Addrs[0], Server: s.hosts["server"].Addrs[0], Protocol: policy.TCP, Port: 80, Answer: 80}
		s.enforcer.cuts.Add(class, now)
		s.sync()
		require.Len(t, s.cut(), 1)

		s.setGuard(friends, others)()
		s.sync()
		require.Empty(t, s.cut())
		require.Contains(t, s.dump(), "--match-set moat-4-cut")
		require.NotContains(t, s.dump(), "moat-6-cut", "nothing of that family was cut")

		s.enforcer.cuts.Linger = 0
		s.sync()
		require.NotContains(t, s.dump(), "-cut", "nothing is cut, and yet packets are asked")
	})
}

// An agent that starts cuts what was forbidden while there was none, goes on with
// what the one before it cut, and lets go of what was allowed meanwhile.
func TestCutsOutliveTheAgent(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := guarded(t, backend)
		s.sync()
		stop := s.runAgent()
		defer func() { stop() }()
		forbidden, allowed := openAll(s)
		stop()
		s.setGuard(friends)()
		forbidden.requireFlow(s)
		forbidden.requireCut(s, func() {
			s.restart(backend)
			stop = s.runAgent()
		})
		before := forbidden.came()
		stop = s.restartAfter(stop)
		time.Sleep(cutWithin)
		require.Equal(t, before, forbidden.came(), "the new agent lets packets pass")

		stop()
		s.setGuard(friends, others)()
		s.restart(backend)
		stop = s.runAgent()
		forbidden.requireFlow(s)
		allowed.requireFlow(s)
		allowed.requireWhole(s)
	})
}

func (all streams) came() (sum int64) {
	all.each(func(_ string, c *nodetest.Count) { sum += c.Came() })
	return sum
}

// The pods of a policy that the kernel refuses are closed, for established connections
// too; those of other policies keep theirs, also while the fault is searched.
func TestConnectionsOfARefusedPolicyAreCut(t *testing.T) {
	refuseRestore(t, "6666")
	s := guarded(t, iptables.NFT)
	s.sync()
	defer s.runAgent()()
	closed, kept := streams{}, streams{}
	closed.open(t, "friend -> server", s.hosts["friend"], s.hosts["server"])
	kept.open(t, "far -> neighbour", s.hosts["far"], s.hosts["neighbour"])
	closed.requireFlow(s)
	kept.requireFlow(s)
	closed.requireCut(s, func() {
		s.label("neighbour", map[string]string{"role": "neighbour"})
		s.apply("metadata: {name: neighbour}\nspec: {podSelector: {matchLabels: {role: neighbour}}, policyTypes: [Ingress], ingress: [{}]}")
		s.apply("metadata: {name: guard}\nspec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress], ingress: [{}, {ports: [{port: 6666}]}], egress: [{}]}")
	})
	kept.requireWhole(s)
	s.remove("guard")
	closed.requireFlow(s)
}

// Behind a Service it is the pod and its port that are cut.
func TestConnectionsThroughAServiceAreCut(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := guarded(t, backend)
		s.sync()
		defer s.runAgent()()
		services := []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::10")}
		forbidden, allowed := streams{}, streams{}
		for i, addr := range s.hosts["server"].Addrs {
			target := port(addr)
			program := strings.Replace(string(backend), "iptables", []string{"iptables", "ip6tables"}[i], 1)
			for _, protocol := range []string{"tcp", "udp"} {
				s.run(program, "-w", "-t", "nat", "-A", "PREROUTING", "-d", services[i].String(), "-p", protocol, "--dport", "80", "-j", "DNAT", "--to-destination", target.String())
			}
			service := netip.AddrPortFrom(services[i], 80)
			name := func(from, kind string) string { return fmt.Sprintf("%s %s %d", from, kind, i) }
			for _, from := range []string{"far", "near"} {
				forbidden[name(from, "TCP")] = nodetest.StreamTCP(t, s.hosts[from], s.hosts["server"], service, target)
			}
			allowed[name("friend", "TCP")] = nodetest.StreamTCP(t, s.hosts["friend"], s.hosts["server"], service, target)
			forbidden[name("far", "UDP")] = nodetest.StreamDown(t, s.hosts["far"], s.hosts["server"], service, target)
		}
		forbidden.requireFlow(s)
		forbidden.requireCut(s, s.setGuard(friends))
		require.NotContains(t, s.run("ipset", "list", "moat-4-cut"), "10.96.0.10")
		allowed.requireFlow(s)
		s.remove("guard")
		forbidden.requireFlow(s)
	})
}

// Whoever gets the address of a pod that is gone begins with nothing.
func TestAReleasedAddressIsForgotten(t *testing.T) {
	s := guarded(t, iptables.NFT)
	s.sync()
	defer s.runAgent()()
	var table *conntrack.Table
	require.NoError(t, s.node.Do(func() (err error) {
		table, err = conntrack.Open()
		return err
	}))
	defer table.Close()
	entries := func(addrs []netip.Addr) (n int) {
		require.NoError(t, table.List(func(e *conntrack.Entry) {
			if slices.Contains(addrs, e.Client) || slices.Contains(addrs, e.Server) {
				n++
			}
		}))
		return n
	}
	near, neighbour := s.hosts["near"].Addrs, s.hosts["neighbour"].Addrs
	for _, addr := range near {
		require.True(t, s.hosts["far"].UDP(addr, 53, answerWithin))
		require.True(t, s.hosts["far"].Ping(addr, answerWithin))
	}
	for _, addr := range s.hosts["far"].Addrs {
		require.True(t, s.hosts["near"].UDP(addr, 53, answerWithin))
		require.True(t, s.hosts["neighbour"].UDP(addr, 53, answerWithin))
	}
	require.GreaterOrEqual(t, entries(near), 6)
	kept := entries(neighbour)
	require.GreaterOrEqual(t, kept, 2)

	pod := s.pods["near"]
	s.node.RemovePod(t, s.hosts["near"])
	s.model.DeletePod(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name})
	require.Eventually(t, func() bool { return entries(near) == 0 }, 10*cutWithin, time.Millisecond)
	require.Equal(t, kept, entries(neighbour), "others lost theirs")
}

// Once the kernel has forgotten a connection that was cut, what the server sends
// again would begin one from the server to the client, which is allowed here.
func TestWhatComesLateIsCutToo(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := guarded(t, backend)
		s.sync()
		defer s.runAgent()()
		all := streams{}
		client := s.hosts["far"]
		for _, addr := range s.hosts["server"].Addrs {
			to := port(addr)
			all[to.String()+" TCP"] = nodetest.StreamTCP(t, client, s.hosts["server"], to, to)
		}
		all.requireFlow(s)
		all.requireCut(s, func() {
			s.apply("metadata: {name: guard}\nspec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress]}")
		})
		require.InDelta(t, len(all), metricstest.Scrape(t, s.enforcer.metrics)["cut_connections_total"], 0)
		before := all.came()
		require.NoError(t, s.node.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
		time.Sleep(4 * cutWithin) // the server sends again, in ever longer distances
		require.Equal(t, before, all.came())
		for _, addr := range client.Addrs {
			require.True(t, s.hosts["server"].TCP(addr, 80, answerWithin), "what the server begins is another matter")
		}
		s.remove("guard")
	})
}
