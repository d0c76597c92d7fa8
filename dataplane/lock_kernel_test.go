package dataplane

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/report"
)

// A lock that others hold for longer than a restore waits for it: the agent stays
// alive and says what is wrong, the rules stay, and once the lock is free the change
// is in force at once. The policies are at no fault.
func TestALockThatIsHeldForLong(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "xtables.lock")
	t.Setenv("XTABLES_LOCKFILE", lock)
	s := newAgentScene(t)
	s.backend = iptables.Legacy
	server, peer := s.node.AddPod(t, "10.244.1.80"), s.node.AddPod(t, "10.244.1.81")
	s.pod("server", map[string]string{"app": "server"}, server)
	s.start()
	first := s.create(`{metadata: {name: first}, spec: {podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]}}`)
	s.eventually(func() bool { return s.enforces(first) }, "the policy is in force")

	file, err := os.Create(lock)
	require.NoError(t, err)
	defer func() { _ = file.Close() }()
	require.NoError(t, unix.Flock(int(file.Fd()), unix.LOCK_EX))
	second := s.create(`{metadata: {name: second}, spec: {podSelector: {}, policyTypes: [Egress]}}`)
	locked := func() bool {
		synced := apimeta.FindStatusCondition(s.report().Status.Conditions, v1alpha1.NodeConditionDataplaneSynced)
		return synced != nil && synced.Reason == v1alpha1.NodeReasonLockUnavailable
	}
	require.Eventually(t, func() bool { return s.agent.health.Alive() == nil && locked() }, 40*time.Second, 100*time.Millisecond, "it says that it waits for the lock")
	require.NoError(t, s.agent.health.Alive())
	require.ErrorContains(t, s.agent.health.Ready(), "xtables lock")
	require.False(t, peer.Ping(server.Addrs[0], silentAfter), "the rules stay")
	require.NotNil(t, s.failureOf(second.UID))
	require.Zero(t, metricstest.Scrape(t, s.agent.enforcer.metrics)["quarantined_policies"])
	require.GreaterOrEqual(t, metricstest.Scrape(t, s.agent.enforcer.metrics)["xtables_lock_failures_total"], 1.0)

	require.NoError(t, unix.Flock(int(file.Fd()), unix.LOCK_UN))
	freed := time.Now()
	require.Eventually(t, func() bool { return s.agent.health.Ready() == nil }, 10*time.Second, 20*time.Millisecond)
	t.Logf("ready %v after the lock was free", time.Since(freed))
	s.eventually(func() bool { return s.enforces(second) }, "and so is the policy")
	s.stop()
}

// A lock file that can't be opened is named, and the rules stand.
func TestALockFileThatCantBeOpened(t *testing.T) {
	s := walkThroughScene(t, iptables.Legacy)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	t.Setenv("XTABLES_LOCKFILE", t.TempDir())
	s.apply("metadata: {name: closed}\nspec: {podSelector: {}, policyTypes: [Ingress]}")
	err := s.trySync()
	require.ErrorContains(t, err, "lock file")
	require.Equal(t, v1alpha1.NodeReasonLockUnavailable, report.ReasonOf(err))
	require.Empty(t, s.enforcer.quarantine)
	s.requirePing(false, "neighbour", "test-np")
	s.requireTCP(true, "project", "test-np", 80)
	s.requirePing(false, "busybox", "neighbour") // isolated since: closed

	t.Setenv("XTABLES_LOCKFILE", filepath.Join(t.TempDir(), "xtables.lock"))
	s.sync()
	s.requireAgreement()
}

// Another engine that is there at the start, or comes later, is reported and left alone.
func TestAnotherEngineIsReported(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.run("iptables-legacy", "-N", "KUBE-NWPLCY-DEFAULT")
	s.run("iptables-nft", "-N", "WEAVE-NPC")
	s.sync()
	require.Len(t, s.enforcer.engines, 2)
	s.run("nft", "add", "table", "inet", "kube-network-policies")
	s.run("nft", "add", "chain", "inet", "kube-network-policies", "postrouting")
	s.run("iptables-nft", "-X", "WEAVE-NPC")
	s.enforcer.inspection.aroundAt = time.Now().Add(-readEvery)
	s.enforcer.distrust()
	s.sync()
	require.Equal(t, []string{
		"kube-network-policies (chain postrouting in table kube-network-policies of iptables-nft, inet)",
		"kube-router (chain KUBE-NWPLCY-DEFAULT in table filter of iptables-legacy, IPv4)",
	}, s.enforcer.engines)
	require.Contains(t, s.run("iptables-legacy-save"), "KUBE-NWPLCY-DEFAULT", "it is left alone")

	r := report.New(nil, nil, "node-1", logr.Discard())
	r.Found(s.enforcer.surroundings())
	conditions := observed(r, s.enforcer.view, nil).Conditions
	conflict := apimeta.FindStatusCondition(conditions, v1alpha1.NodeConditionPolicyEngineConflict)
	require.Equal(t, v1alpha1.NodeReasonOtherEngineFound, conflict.Reason)
	require.Contains(t, conflict.Message, "kube-router")
	require.True(t, apimeta.IsStatusConditionTrue(conditions, v1alpha1.NodeConditionDataplaneSynced), "Moat's rules are in force all the same")
	r.Found(report.Surroundings{})
	require.True(t, apimeta.IsStatusConditionFalse(observed(r, s.enforcer.view, nil).Conditions, v1alpha1.NodeConditionPolicyEngineConflict))
	s.enforcer.metrics.Show(s.enforcer.snapshot(0))
	require.EqualValues(t, 1, metricstest.Scrape(t, s.enforcer.metrics)["policy_engine_conflict"])
}
