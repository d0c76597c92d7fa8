package services

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/test/cluster"
)

// settle is how long rules may take to be as they should.
const settle = time.Minute

func TestServices(t *testing.T) {
	for name, setup := range setups {
		t.Run(name, func(t *testing.T) {
			if setup.backend == iptables.NFT {
				requireLargeMessages(t)
			}
			t.Parallel()
			s := newScene(t, setup)
			policies := slices.Concat(s.addSources(t), s.addPorts(t), s.addHairpins(t), s.addNodeEndpoints(t))
			s.hairpin(t)
			s.hint(t)
			for _, n := range s.Nodes {
				s.proxies = append(s.proxies, s.startProxy(n))
			}
			s.awaitProxies(t)
			before := s.allProxyRules(t)
			// They find out themselves which backend the node uses.
			s.StartAgents(t, "")
			t.Run("everything is open without policies", s.testOpen)

			s.apply(t, policies...)
			s.forgetConnections(t)
			t.Run("sources", s.testSources)
			t.Run("a selector allows its pods and no others", s.testSelector)
			t.Run("ports", s.testPorts)
			t.Run("hairpin", s.testHairpin)
			t.Run("endpoints that are nodes", s.testNodeEndpoints)
			t.Run("pod -> outside", s.testOutside)
			require.Equal(t, before, s.allProxyRules(t), "kube-proxy's rules aren't ours")
			t.Run("the same sources after kube-proxy put its rules first", s.testProxyFirst)

			s.StopAgents(t)
			for _, n := range s.Nodes {
				n.RemoveRules(t)
			}
			t.Run("everything is open without the agents' rules", s.testOpen)
		})
	}
}

// requireLargeMessages skips a test in a user namespace, except in CI: there the
// kernel takes no message of nft that is as long as kube-proxy's first
// (SO_SNDBUFFORCE needs a right that a namespace can't give).
func requireLargeMessages(t *testing.T) {
	t.Helper()
	users, err := os.ReadFile("/proc/self/uid_map")
	require.NoError(t, err)
	if fields := strings.Fields(string(users)); len(fields) == 3 && fields[2] == "4294967295" {
		return
	}
	const reason = "needs root outside of a user namespace"
	require.Empty(t, os.Getenv("CI"), reason)
	t.Skip(reason)
}

// awaitProxies waits until every node's kube-proxy has written its rules: it writes
// those of all Services at once.
func (s *scene) awaitProxies(t *testing.T) {
	t.Helper()
	for i, p := range s.proxies {
		client := s.pods[fmt.Sprintf("client-%d", i+1)]
		for family := range cluster.Families {
			to, port := s.services[serviceName(open, translator, extCluster)].at(toClusterIP, family, "tcp")
			require.Eventually(t, func() bool { return client.TCP(to, port, time.Second) }, settle, 100*time.Millisecond,
				"kube-proxy of %s; its log is %s", s.Nodes[i].Name, p.Log)
		}
	}
}

func (s *scene) allProxyRules(t *testing.T) (rules [][]string) {
	t.Helper()
	for _, n := range s.Nodes {
		rules = append(rules, s.proxyRules(t, n))
	}
	return rules
}

// testOpen shows that the probes which fail under the policies fail because of
// them: without, all of them pass, and the servers see the same.
func (s *scene) testOpen(t *testing.T) {
	measured := s.measure(func(p probe) bool { return p.expected().policy != neverSent })
	compare(t, measured, func(r row, want outcome) seen {
		all := seen{outcome: outcome{anyone, want.server}, bySelector: true}
		if r.egress != "" {
			all.egress = asBoth
		}
		return all
	})
}

// testSources compares the rows with what is measured, and prints it.
func (s *scene) testSources(t *testing.T) {
	measured := s.measure(probe.passes)
	compare(t, measured, func(r row, want outcome) seen {
		return seen{
			outcome: want, egress: r.egress,
			bySelector: want.policy == anyone || strings.HasPrefix(want.policy, "client"),
		}
	})
	t.Log(s.table(measured))
}

// compare compares what was measured with what is wanted of the rows whose packets
// are sent at all.
func compare(t *testing.T, measured []observation, want func(row, outcome) seen) {
	t.Helper()
	var mismatches []string
	for _, o := range measured {
		wanted := seen{outcome: never}
		if expected := o.expected(); expected != never {
			wanted = want(o.row, expected)
		}
		if o.seen != wanted {
			mismatches = append(mismatches, fmt.Sprintf("%s, endpoint on %s, %s, %s: measured %+v, expected %+v",
				o.row.name, o.place(), cluster.Families[o.family], o.network, o.seen, wanted))
		}
	}
	require.Empty(t, mismatches, "%d of %d differ", len(mismatches), len(measured))
}

// table prints what was measured: a line for each row and endpoint, or more where
// families or protocols differ.
func (s *scene) table(measured []observation) string {
	var names, lines []string
	for name, addrs := range s.sources() {
		names = append(names, fmt.Sprintf("%s: %s and %s", name, addrs[0], addrs[1]))
	}
	slices.Sort(names)
	for _, o := range measured {
		line := fmt.Sprintf("%-42s endpoint on %-12s  policy sees %-12s  server sees %-9s  egress sees %s",
			o.row.name, o.place(), o.policy, o.server, o.egress)
		if !slices.Contains(lines, line) {
			lines = append(lines, line)
		}
	}
	return fmt.Sprintf("%d measurements\n%s\n%s", len(measured), strings.Join(names, "\n"), strings.Join(lines, "\n"))
}

// testProxyFirst lets kube-proxy put its jumps ahead of all other rules, as it does
// when it starts for the first time: one of its chains accepts what it marked. Moat
// filters before, in another table, so that nothing is open then.
func (s *scene) testProxyFirst(t *testing.T) {
	n := s.Nodes[translator]
	rules := func(family string) []string {
		return strings.Split(strings.TrimSpace(n.Run(t, s.setup.program(family), "-w", "-S", "FORWARD")), "\n")
	}
	s.proxies[translator].Stop(t)
	for _, family := range cluster.Families {
		for _, rule := range rules(family)[1:] {
			if strings.Contains(rule, "-j KUBE-") {
				// kube-proxy's comments have blanks, which -S quotes.
				n.Run(t, "sh", "-c", s.setup.program(family)+" -w "+strings.Replace(rule, "-A", "-D", 1))
			}
		}
	}
	s.proxies[translator] = s.startProxy(n)
	for _, family := range cluster.Families {
		if s.setup.mode == cluster.ProxyIPTables {
			require.Eventually(t, func() bool { return strings.Contains(strings.Join(rules(family), "\n"), "-j KUBE-FORWARD") }, settle, 10*time.Millisecond)
		}
	}
	s.awaitProxies(t)
	s.forgetConnections(t)
	s.testSources(t)
}
