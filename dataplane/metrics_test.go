package dataplane

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// countedPackets returns the packets of a series of each family.
func countedPackets(t *testing.T, m *metrics.Metrics, name string) map[ruleset.Family]uint64 {
	t.Helper()
	series, packets := metricstest.Scrape(t, m), map[ruleset.Family]uint64{}
	for _, family := range ruleset.Families() {
		packets[family] = uint64(series[name+" "+family.String()])
	}
	return packets
}

// requireKernelNumbers compares the metrics of what is programmed with the
// programs' own listings.
func requireKernelNumbers(t *testing.T, host *nodetest.Host, series map[string]float64) {
	t.Helper()
	listing := map[string]string{
		"IPv4": runIn(t, host, "iptables-nft-save", "-t", "mangle"),
		"IPv6": runIn(t, host, "ip6tables-nft-save", "-t", "mangle"),
	}
	sets := runIn(t, host, "ipset", "save")
	for family, prefix := range map[string]string{"IPv4": "moat-4-", "IPv6": "moat-6-"} {
		for name, want := range map[string]int{
			"iptables_chains": strings.Count(listing[family], "\n:MOAT"),
			"iptables_rules":  strings.Count(listing[family], "\n-A MOAT"),
			"ipset_sets":      strings.Count("\n"+sets, "\ncreate "+prefix),
			"ipset_members":   strings.Count(sets, "\nadd "+prefix),
		} {
			require.EqualValues(t, want, series[name+" "+family], "%s of %s", name, family)
		}
	}
}

// Whoever scrapes the metrics, and however often, makes the node run no program.
func TestAScrapeRunsNoProgram(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.guardNode()
	s.sync()
	log := filepath.Join(t.TempDir(), "log")
	dir := t.TempDir()
	for _, name := range []string{"iptables-nft-save", "ip6tables-nft-save", "iptables-nft-restore", "ip6tables-nft-restore"} {
		program := findProgram(t, name)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, "#!/bin/sh\necho %s >> %s\nexec %s \"$@\"\n", name, log, program), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s.enforcer.close() // finds its programs again
	s.enforcer.distrust()
	s.sync()
	before, err := os.ReadFile(log)
	require.NoError(t, err)
	for range 50 {
		require.NoError(t, s.node.Do(func() error { metricstest.Scrape(t, s.enforcer.metrics); return nil }))
	}
	after, err := os.ReadFile(log)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}

// breakableRestore puts programs in front of iptables-restore that refuse to work
// while the returned file exists.
func breakableRestore(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	for _, name := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
		program := findProgram(t, name)
		script := fmt.Sprintf("#!/bin/sh\n[ ! -e %s ] || { echo broken >&2; exit 1; }\nexec %s \"$@\"\n", broken, program)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return broken
}

// What is scraped is true after the first sync, a policy, a repair and a failed
// restore.
func TestMetricsOfTheAgent(t *testing.T) {
	s := newAgentScene(t)
	broken := breakableRestore(t)
	server, peer := s.node.AddPod(t, "10.244.1.90"), s.node.AddPod(t, "10.244.1.91")
	s.pod("server", map[string]string{"app": "server"}, server)
	s.pod("client", map[string]string{"app": "client"}, peer)
	started := time.Now()
	s.start()
	defer s.stop()
	var series map[string]float64
	eventually := func(name string, atLeast float64) {
		t.Helper()
		s.eventually(func() bool { series = metricstest.Scrape(t, s.agent.enforcer.metrics); return series[name] >= atLeast }, name)
	}

	eventually("syncs_total success", 1)
	requireKernelNumbers(t, s.node.Host, series)
	require.EqualValues(t, 2, series["iptables_restores_total success"], "one for each family")
	require.GreaterOrEqual(t, series["ipset_requests_total"], 1.0)
	require.GreaterOrEqual(t, series["event_to_kernel_duration_seconds"], 1.0)
	first := series
	require.InDelta(t, started.Unix(), series["last_successful_sync_timestamp_seconds"], 20)
	require.Zero(t, series["isolated_pods Ingress"])

	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "server"}}
	require.NoError(t, yaml.Unmarshal([]byte(`
podSelector: {matchLabels: {app: server}}
ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]`), &np.Spec))
	require.NoError(t, s.admin.Create(t.Context(), np))
	eventually("isolated_pods Ingress", 1)
	eventually("event_to_kernel_duration_seconds", first["event_to_kernel_duration_seconds"]+1)
	requireKernelNumbers(t, s.node.Host, series)
	require.EqualValues(t, 2, series["ipset_members IPv4"], "the isolated pod and its peer")
	require.Zero(t, series["isolated_pods Egress"])
	require.Zero(t, series["failed_policies"])
	for _, kind := range []string{"hook", "chain", "set"} {
		require.Zero(t, series["repairs_total "+kind], "what the agent changes itself is no repair: %s", kind)
	}

	runIn(t, s.node.Host, "iptables-nft", "-t", "mangle", "-D", "FORWARD", "1")
	eventually("repairs_total hook", 1)
	require.EqualValues(t, 1, series["repairs_total hook"])
	require.Zero(t, series["repairs_total chain"])
	require.Zero(t, series["repairs_total set"])

	require.NoError(t, os.WriteFile(broken, nil, 0o600))
	np.Spec.Ingress = nil
	require.NoError(t, s.admin.Update(t.Context(), np))
	eventually("failed_policies", 1)
	eventually("syncs_total error", 1)
	require.GreaterOrEqual(t, series["iptables_restores_total error"], 1.0)
	failedAt := series
	eventually("syncs_total error", failedAt["syncs_total error"]+1)
	for _, name := range []string{"last_successful_sync_timestamp_seconds", "event_to_kernel_duration_seconds", "repairs_total chain", "repairs_total set"} {
		require.Equal(t, failedAt[name], series[name], "a failed sync changes no %s", name)
	}

	require.NoError(t, os.Remove(broken))
	eventually("event_to_kernel_duration_seconds", failedAt["event_to_kernel_duration_seconds"]+1)
	requireKernelNumbers(t, s.node.Host, series)
	require.Zero(t, series["failed_policies"])
	require.Equal(t, 1.0, series["repairs_total hook"]+series["repairs_total chain"]+series["repairs_total set"])
}

// A repair is of what another program did. What the model changed by the time that
// the kernel is read back is none.
func TestRepairsAreCounted(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	repairs := func(do func()) (hooks, chains, sets float64) {
		t.Helper()
		before := metricstest.Scrape(t, s.enforcer.metrics)
		do()
		s.enforcer.distrust()
		s.sync()
		s.enforcer.metrics.Show(s.enforcer.snapshot(0))
		after := metricstest.Scrape(t, s.enforcer.metrics)
		requireKernelNumbers(t, s.node.Host, after)
		diff := func(kind string) float64 { return after["repairs_total "+kind] - before["repairs_total "+kind] }
		return diff("hook"), diff("chain"), diff("set")
	}
	change := false
	modelChanges := func() {
		change = !change
		s.label("busybox", map[string]string{"role": map[bool]string{true: "frontend", false: "none"}[change]})
	}
	nothing := func() {}
	var peers string // of the podSelector: busybox comes and goes
	for _, row := range []struct {
		name                string
		do                  func()
		hooks, chains, sets float64
	}{
		{"the first sync finds what an agent before left", func() {
			s.run("ipset", "create", "moat-old", "hash:ip")
			s.run("iptables-nft", "-t", "mangle", "-N", "MOAT-OLD")
		}, 0, 0, 0},
		{"nothing", nothing, 0, 0, 0},
		{"a peer comes", modelChanges, 0, 0, 0},
		{"a peer goes", modelChanges, 0, 0, 0},
		{"a policy goes", func() { s.remove("test-network-policy") }, 0, 0, 0},
		{"a policy comes", func() { s.apply(walkThrough) }, 0, 0, 0},
		{"a peer comes without a read-back", func() { modelChanges(); s.sync() }, 0, 0, 0},
		{"hook deleted", func() { s.run("iptables-nft", "-t", "mangle", "-D", "FORWARD", "1") }, 1, 0, 0},
		{"chain flushed", func() { s.run("iptables-nft", "-t", "mangle", "-F", "MOAT-INGRESS") }, 0, 1, 0},
		{"chain added", func() { s.run("iptables-nft", "-t", "mangle", "-N", "MOAT-OLD") }, 0, 1, 0},
		{"set of isolated pods polluted", func() { s.run("ipset", "add", "moat-4-ingress", "10.244.1.11") }, 0, 0, 1},
		{"set of peers polluted", func() { s.run("ipset", "add", peers, "10.244.1.11") }, 0, 0, 1},
		{"set of peers flushed", func() { s.run("ipset", "flush", peers) }, 0, 0, 1},
		{"set added", func() { s.run("ipset", "create", "moat-old", "hash:ip") }, 0, 0, 1},
		{"set polluted that changes too", func() { s.run("ipset", "add", peers, "10.244.1.11"); modelChanges() }, 0, 0, 1},
		{"nothing any more", nothing, 0, 0, 0},
		{"a set that another program uses stays", func() {
			s.run("iptables-nft", "-t", "mangle", "-A", "OUTPUT", "-m", "set", "--match-set", peers, "src")
			s.remove("test-network-policy")
		}, 0, 0, 0},
		{"and is still used", nothing, 0, 0, 0},
		{"and goes", func() { s.run("iptables-nft", "-t", "mangle", "-F", "OUTPUT") }, 0, 0, 0},
	} {
		hooks, chains, sets := repairs(row.do)
		require.Equal(t, []float64{row.hooks, row.chains, row.sets}, []float64{hooks, chains, sets}, row.name)
		if row.name == "a peer comes without a read-back" {
			peers = s.setHolding("10.244.2.10")
		}
	}
}

// setHolding returns the name of a set of peers that holds an address.
func (s *scene) setHolding(addr string) string {
	s.t.Helper()
	for line := range strings.Lines(s.run("ipset", "save")) {
		words := strings.Fields(line)
		if words[0] == "add" && strings.HasPrefix(words[1], "moat-4-p-") && words[2] == addr {
			return words[1]
		}
	}
	s.t.Fatalf("no set holds %s", addr)
	return ""
}

// Setup puts the metrics where the manager's /metrics comes from.
func TestSetupRegistersTheMetrics(t *testing.T) {
	s := newAgentScene(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := Setup(ctx, s.manager(apiServer.Agent(t, s.nodeName)), Options{NodeName: s.nodeName, Words: s.words})
	require.NoError(t, err)
	t.Cleanup(func() { ctrlmetrics.Registry.Unregister(newMetrics()) })
	families, err := ctrlmetrics.Registry.Gather()
	require.NoError(t, err)
	var names []string
	for _, family := range families {
		names = append(names, family.GetName())
	}
	require.Contains(t, names, "moat_syncs_total")
}
