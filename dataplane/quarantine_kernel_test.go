package dataplane

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/report/reporttest"
)

// refuseRestore puts programs in front of iptables-restore that refuse scripts with
// the text, while the returned file exists.
func refuseRestore(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	refusing := filepath.Join(dir, "refusing")
	require.NoError(t, os.WriteFile(refusing, nil, 0o600))
	for _, name := range []string{"iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore", "ip6tables-legacy-restore"} {
		program := findProgram(t, name)
		script := fmt.Sprintf("#!/bin/sh\nscript=$(cat)\nif [ -e %s ]; then case $script in *%q*) echo \"line 7: I don't like %s\" >&2; exit 2;; esac; fi\n"+
			"printf '%%s\\n' \"$script\" | %s \"$@\"\n", refusing, text, text, program)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return refusing
}

// crowdOfPolicies isolates the neighbour and the pods local-N by a policy each.
func (s *scene) crowdOfPolicies(n int) {
	for i := range n {
		pod := policytest.PodObject(fmt.Sprintf("local-%d", i), thisNode, fmt.Sprintf("10.244.1.%d", 100+i))
		pod.Namespace, pod.Labels = "default", map[string]string{"local": fmt.Sprint(i)}
		s.model.SetPod(policy.ParsePod(pod))
		s.apply(fmt.Sprintf("metadata: {name: local-%d}\nspec: {podSelector: {matchLabels: {local: %q}}, policyTypes: [Ingress], ingress: [{ports: [{port: %d}]}]}", i, fmt.Sprint(i), 1000+i))
	}
	s.label("neighbour", map[string]string{"app": "neighbour"})
	s.apply("metadata: {name: neighbour}\nspec: {podSelector: {matchLabels: {app: neighbour}}, policyTypes: [Ingress], ingress: [{ports: [{port: 81}]}]}")
}

const refusedPolicy = `
metadata: {name: refused}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress]
  ingress: [{ports: [{port: 6666}]}, {ports: [{port: 80}]}]
`

// kube-router, whole-file restore: a rule that is refused closes the pods of its own
// policy. All others are in force at once, and what is refused is tried again.
func TestARefusedRuleClosesItsOwnPods(t *testing.T) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			refusing := refuseRestore(t, "6666")
			s := walkThroughScene(t, backend)
			s.sync()
			s.label("test-np", map[string]string{"role": "db"})
			s.crowdOfPolicies(30)
			s.apply(refusedPolicy)
			s.apply("metadata: {name: allows}\nspec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}")

			before := s.restores()
			s.sync()
			t.Logf("%.0f restores of both families find one policy among 33", s.restores()-before)
			require.LessOrEqual(t, s.restores()-before, 40.0)
			s.requireTCP(false, "busybox", "test-np", 80) // whatever the other policy allows
			s.requireTCP(true, "test-np", "busybox", 80)  // which doesn't isolate egress
			s.requireTCP(true, "busybox", "neighbour", 81)
			s.requireTCP(false, "busybox", "neighbour", 80)
			require.Equal(t, []policyID{{"default/refused", 1}}, s.quarantined())
			require.ErrorContains(t, s.enforcer.view.refused["default/refused"], "I don't like 6666")

			status := observed(report.New(nil, nil, "node-1", logr.Discard()), s.enforcer.view, nil)
			require.EqualValues(t, 32, status.PolicyCount)
			require.Equal(t, "default/refused!RestoreFailed", reporttest.List(&v1alpha1.NodeEnforcementStatus{Failures: status.Failures}))
			s.enforcer.metrics.Show(s.enforcer.snapshot(1))
			require.EqualValues(t, 1, metricstest.Scrape(t, s.enforcer.metrics)["quarantined_policies"])

			// What others change goes on, without a try of what is refused.
			before = s.restores()
			s.remove("neighbour")
			s.sync()
			require.LessOrEqual(t, s.restores()-before, 2.0)
			s.requireTCP(true, "busybox", "neighbour", 80)

			// It is tried again later, in vain, and then with success.
			for _, works := range []bool{false, true} {
				if works {
					require.NoError(t, os.Remove(refusing))
				}
				s.enforcer.quarantine[policyID{"default/refused", 1}].retry = time.Now()
				s.sync()
				require.Equal(t, works, len(s.quarantined()) == 0)
				s.requireTCP(works, "busybox", "test-np", 80)
			}
			s.requireAgreement()
		})
	}
}

func (s *scene) quarantined() []policyID {
	return s.enforcer.quarantine.due(time.Now().Add(365 * 24 * time.Hour))
}

// Another generation is tried at once, and a policy that goes opens its pods.
func TestARefusedPolicyThatChanges(t *testing.T) {
	refuseRestore(t, "6666")
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(refusedPolicy)
	s.sync()
	require.Len(t, s.quarantined(), 1)
	s.requireTCP(false, "busybox", "test-np", 80)

	better := s.policies["refused"].DeepCopy()
	better.Generation, better.Spec.Ingress = 2, better.Spec.Ingress[1:]
	s.policies["refused"] = better
	s.model.SetPolicy(policy.ParseNetworkPolicy(better))
	s.sync()
	require.Empty(t, s.quarantined())
	s.requireTCP(true, "busybox", "test-np", 80)
	s.requireTCP(false, "busybox", "test-np", 81)

	s.apply(strings.Replace(refusedPolicy, "name: refused", "name: second", 1))
	s.sync()
	s.requireTCP(false, "busybox", "test-np", 80)
	s.remove("second")
	s.sync()
	require.Empty(t, s.quarantined())
	s.requireTCP(true, "busybox", "test-np", 80)
}

// A policy that was in force and whose rules are refused from now on, as after a flush
// and without a kernel module.
func TestAllPoliciesAreSuspectAfterAFlush(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.crowdOfPolicies(5)
	s.apply(refusedPolicy)
	s.sync()
	refuseRestore(t, "6666")
	s.enforcer.close() // finds its programs again
	s.damage("iptables -F")
	s.damage("iptables -X")
	s.enforcer.distrust()
	s.sync()
	require.Len(t, s.quarantined(), 1)
	s.requireTCP(false, "busybox", "test-np", 80)
	s.requireTCP(true, "busybox", "neighbour", 81)
}

// What no policy is at fault for quarantines none: the last good rules stay.
func TestAFailureOfAllIsNoPolicysFault(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.crowdOfPolicies(3)
	s.sync()
	s.breakRestore(true)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	before := s.restores()
	require.ErrorContains(t, s.trySync(), "restoring the mangle table")
	require.LessOrEqual(t, s.restores()-before, 4.0, "one more try for each family")
	require.Empty(t, s.quarantined())
	s.requirePing(false, "busybox", "test-np")
	s.requireTCP(true, "busybox", "neighbour", 81)
	s.breakRestore(false)
	s.sync()
	s.requireWalkThrough()
}

// A program that is broken for a moment closes no pod, not even until the next try.
func TestAFailureThatPassesClosesNobody(t *testing.T) {
	dir := t.TempDir()
	broken, scripts := filepath.Join(dir, "broken"), filepath.Join(dir, "scripts")
	require.NoError(t, os.WriteFile(broken, nil, 0o600))
	for _, name := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
		program := findProgram(t, name)
		script := fmt.Sprintf("#!/bin/sh\nscript=$(cat)\ncase $script in *6666*) if rm %s 2>/dev/null; then exit 1; fi;; esac\n"+
			"printf '%%s\\n' \"$script\" | tee -a %s | %s \"$@\"\n", broken, scripts, program)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(refusedPolicy)
	s.sync()
	require.NoFileExists(t, broken)
	require.Empty(t, s.quarantined())
	s.requireTCP(true, "busybox", "test-np", 80)
	written, err := os.ReadFile(scripts)
	require.NoError(t, err)
	for _, script := range strings.SplitAfter(string(written), "COMMIT\n") {
		if strings.Contains(script, "MOAT-I-") {
			require.Contains(t, script, "6666", "a pod was closed")
		}
	}
}

// A set that the real kernel refuses to make, since one of that name and of another
// type is in use, closes the pods of the policy that needs it.
func TestASetThatCantBeMadeHitsItsPolicyAlone(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.crowdOfPolicies(10)
		s.sync()
		s.apply(admitsFrontends)
		inTheWay := peerSetOf(s.policies["admits"])
		s.run("ipset", "create", inTheWay, "hash:net")
		s.run("ipset", "add", inTheWay, "10.244.2.0/24")
		s.damage("iptables -A OUTPUT -m set --match-set " + inTheWay + " src")
		s.sync()
		require.Equal(t, []policyID{{"default/admits", 1}}, s.quarantined())
		require.ErrorContains(t, s.enforcer.view.refused["default/admits"], inTheWay)
		s.requirePing(false, "busybox", "test-np") // whom the set in the way holds
		s.requireTCP(true, "busybox", "neighbour", 81)

		s.damage("iptables -F OUTPUT")
		s.enforcer.quarantine[policyID{"default/admits", 1}].retry = time.Now()
		s.enforcer.distrust()
		s.sync()
		require.Empty(t, s.quarantined())
		s.requirePing(false, "busybox", "test-np")
		s.label("busybox", map[string]string{"role": "frontend"})
		s.sync()
		s.requirePing(true, "busybox", "test-np")
	})
}

// peerSetOf returns the name of the IPv4 set of the policy's first ingress peer.
func peerSetOf(np *networkingv1.NetworkPolicy) string {
	p := policy.ParseNetworkPolicy(np)
	pod := &policy.Pod{Namespace: "default", Name: "x", Addrs: policy.ParsePod(policytest.PodObject("x", thisNode, "10.244.1.99")).Addrs}
	p.UID = types.UID("x")
	endpoint := policy.Endpoint{Pod: pod, Isolating: [policy.Directions][]*policy.Policy{{p}, nil}}
	output := compile.Compile(compile.Host{}, 4, []policy.Endpoint{endpoint}, compile.Links{}, compile.Guard{})
	for name := range output.Peers {
		return name
	}
	return ""
}
