package dataplane

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/flows"
	"github.com/moat-dev/moat/dataplane/kernel/conntrack"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// flushEverything takes all rules of all programs from the node, as "nft flush ruleset"
// does. From then on the kernel tracks no connections.
func (s *scene) flushEverything() {
	s.t.Helper()
	if s.enforcer.backend == iptables.NFT {
		s.run("nft", "flush", "ruleset")
		return
	}
	var empty strings.Builder
	for table, chains := range map[string]string{
		"raw": "PREROUTING OUTPUT", "mangle": "PREROUTING INPUT FORWARD OUTPUT POSTROUTING",
		"nat": "PREROUTING INPUT OUTPUT POSTROUTING", "filter": "INPUT FORWARD OUTPUT",
	} {
		empty.WriteString("*" + table + "\n")
		for chain := range strings.FieldsSeq(chains) {
			empty.WriteString(":" + chain + " ACCEPT\n")
		}
		empty.WriteString("COMMIT\n")
	}
	for _, program := range []string{"iptables-legacy-restore", "ip6tables-legacy-restore"} {
		require.NoError(s.t, s.node.Do(func() error { return restoreAll(s.t, empty.String(), program) }))
	}
}

// restoreAll runs a program of iptables-restore.
func restoreAll(t *testing.T, script, program string, options ...string) error {
	t.Helper()
	cmd := exec.Command(program, options...)
	cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+filepath.Join(t.TempDir(), "xtables.lock"))
	cmd.Stdin = strings.NewReader(script)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running %s: %w: %s", program, err, output)
	}
	return nil
}

// openDown opens connections of TCP in both families in which the server alone sends.
func (all streams) openDown(t *testing.T, name string, client, server *nodetest.Host) {
	t.Helper()
	for _, addr := range server.Addrs {
		to := port(addr)
		all[fmt.Sprintf("%s TCP, silent client %s", name, addr)] = nodetest.StreamTCPDown(t, client, server, to, to)
	}
}

// openBoth opens connections of TCP and UDP in both families in which both ends send.
func (all streams) openBoth(t *testing.T, name string, client, server *nodetest.Host) {
	t.Helper()
	for _, addr := range server.Addrs {
		to := port(addr)
		all[fmt.Sprintf("%s TCP %s", name, addr)] = nodetest.StreamTCP(t, client, server, to, to)
		to = port(addr)
		all[fmt.Sprintf("%s UDP %s", name, addr)] = nodetest.StreamUDP(t, client, server, to, to)
	}
}

// pickedUp counts the entries of the kernel's table whose first packet seen was that of a
// server, by their ports.
func (s *scene) pickedUp() (n int) {
	s.t.Helper()
	require.NoError(s.t, s.node.Do(func() error {
		table, err := conntrack.Open()
		if err != nil {
			return err
		}
		defer table.Close()
		scan := conntrack.Scan{ClientPorts: conntrack.Ports{First: 32768}, Isolated: flows.IsolatedAddresses(&flows.Enforced{Endpoints: s.enforcer.view.Endpoints})}
		if err := table.List(scan.Add); err != nil {
			return err
		}
		for class, count := range scan.Classes {
			if class.Opener != conntrack.First {
				n += count
			}
		}
		return nil
	}))
	return n
}

// On a busy node the first look comes when the kernel calls connections of UDP assured that it
// picked up: those that are forbidden are cut all the same, and those that are allowed go on.
func TestConnectionsOfAGapAreCutLate(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := guarded(t, backend)
		s.apply("metadata: {name: guard}\nspec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [" + friends + "]}]}")
		s.sync()
		s.flushEverything()
		forbidden, allowed := streams{}, streams{}
		for i := range 8 { // the kernel sees now this end first, now that one
			forbidden.openBoth(t, fmt.Sprint("far -> server ", i), s.hosts["far"], s.hosts["server"])
			allowed.openBoth(t, fmt.Sprint("server -> far ", i), s.hosts["server"], s.hosts["far"])
		}
		forbidden.requireFlow(s)
		allowed.requireFlow(s)
		s.inspect()
		s.sync()
		time.Sleep(conntrack.AssuredAfter + 500*time.Millisecond)
		forbidden.requireCut(s, func() { t.Cleanup(s.runAgent()) })
		allowed.requireFlow(s)
	})
}

// While all tables are flushed, connections come about that the kernel sees the first
// of when they are in their middle. Those that are forbidden are cut, whichever end's
// packet the kernel sees first; those that are allowed go on, and so do those from before.
func TestConnectionsOpenedInAGapAreCut(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := guarded(t, backend)
		s.pod("default", "sender", map[string]string{"role": "sender"}, "10.244.1.13", "fd00:10:244:1::13")
		s.apply("metadata: {name: guard}\nspec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [" + friends + "]}]}")
		s.apply("metadata: {name: sender}\nspec: {podSelector: {matchLabels: {role: sender}}, policyTypes: [Egress], egress: [{to: [" + friends + "]}]}")
		s.sync()
		defer s.runAgent()()
		before, forbidden, allowed, unanswered := streams{}, streams{}, streams{}, streams{}
		before.openBoth(t, "friend -> server before", s.hosts["friend"], s.hosts["server"])
		before.openBoth(t, "server -> far before", s.hosts["server"], s.hosts["far"])
		before.requireFlow(s)

		s.flushEverything()
		forbidden.openBoth(t, "far -> server", s.hosts["far"], s.hosts["server"])
		for _, client := range []string{"far", "near"} {
			forbidden.openDown(t, client+" -> server", s.hosts[client], s.hosts["server"])
		}
		forbidden.openDown(t, "sender -> far", s.hosts["sender"], s.hosts["far"])
		unanswered.openDown(t, "sender -> node", s.hosts["sender"], s.node.Host)
		allowed.openBoth(t, "friend -> server", s.hosts["friend"], s.hosts["server"])
		for _, client := range []string{"friend", "neighbour"} {
			allowed.openDown(t, client+" -> server", s.hosts[client], s.hosts["server"])
		}
		allowed.openBoth(t, "server -> far", s.hosts["server"], s.hosts["far"]) // far alone may not begin
		allowed.openDown(t, "sender -> friend", s.hosts["sender"], s.hosts["friend"])
		allowed.openDown(t, "node -> server", s.node.Host, s.hosts["server"])
		forbidden.requireFlow(s)
		unanswered.requireFlow(s)
		allowed.requireFlow(s)

		forbidden.requireCut(s, func() { s.inspects <- struct{}{} })
		unanswered.requireQuiet(s)
		require.Positive(t, s.pickedUp(), "the kernel picked none up, so that the test shows nothing")
		allowed.requireFlow(s)
		before.requireFlow(s)

		s.setGuard(friends, others)() // allows what far and near do to the server
		s.remove("sender")
		forbidden.requireFlow(s)
		unanswered.requireFlow(s)
	})
}

// Where another program's rules make the kernel track connections again before Moat's
// are back, they are picked up all the same, and those that are opened from then on are known by
// their first packet, also through a Service.
func TestConnectionsOfAGapThatAnotherProgramEnded(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := guarded(t, backend)
		s.apply("metadata: {name: guard}\nspec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [" + friends + "]}]}")
		s.sync()
		defer s.runAgent()()
		s.flushEverything()
		forbidden, allowed := streams{}, streams{}
		forbidden.openDown(t, "far -> server", s.hosts["far"], s.hosts["server"])
		allowed.openDown(t, "friend -> server", s.hosts["friend"], s.hosts["server"])
		service := netip.MustParseAddrPort("10.96.0.10:80")
		target := port(s.hosts["server"].Addrs[0])
		s.run(string(backend), "-w", "-t", "nat", "-A", "PREROUTING", "-d", service.Addr().String(), "-p", "tcp", "--dport", "80", "-j", "DNAT", "--to-destination", target.String())
		forbidden["far TCP by Service"] = nodetest.StreamTCPDown(t, s.hosts["far"], s.hosts["server"], service, target)
		allowed["friend TCP by Service"] = nodetest.StreamTCPDown(t, s.hosts["friend"], s.hosts["server"], service, target)
		forbidden.requireFlow(s)
		allowed.requireFlow(s)
		forbidden.requireCut(s, func() { s.inspects <- struct{}{} })
		allowed.requireFlow(s)
	})
}

// The agent that comes next goes on with what was picked up and cut.
func TestCutsOfPickedUpConnectionsOutliveTheAgent(t *testing.T) {
	s := guarded(t, iptables.NFT)
	s.apply("metadata: {name: guard}\nspec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [" + friends + "]}]}")
	s.sync()
	stop := s.runAgent()
	defer func() { stop() }()
	s.flushEverything()
	forbidden := streams{}
	forbidden.openDown(t, "far -> server", s.hosts["far"], s.hosts["server"])
	forbidden.requireFlow(s)
	forbidden.requireCut(s, func() { s.inspects <- struct{}{} })
	before := forbidden.came()
	stop = s.restartAfter(stop)
	time.Sleep(2 * cutWithin)
	require.Equal(t, before, forbidden.came(), "the new agent lets packets pass")
	require.Len(t, s.cut(), 4, "two members for each connection")
	s.setGuard(friends, others)()
	forbidden.requireFlow(s)
}
