package dataplane

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
	"github.com/moat-dev/moat/dataplane/pacing"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/report/reporttest"
)

// testLimit is the time limit of iptables-restore in these tests.
const testLimit = 2 * time.Second

// troubled runs shell commands before iptables-restore, which see its input as $script,
// while the returned file exists.
func troubled(t *testing.T, commands string) (file string) {
	t.Helper()
	dir := t.TempDir()
	file = filepath.Join(dir, "trouble")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	for _, name := range []string{"iptables-nft-restore", "ip6tables-nft-restore", "iptables-legacy-restore", "ip6tables-legacy-restore"} {
		program := findProgram(t, name)
		script := fmt.Sprintf("#!/bin/sh\nscript=$(cat)\nif [ -e %s ]; then %s\nfi\nprintf '%%s\\n' \"$script\" | %s \"$@\"\n", file, commands, program)
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	return file
}

// killedScene has a pod of namespace hostile beside those of default, and a policy in force
// in both.
func killedScene(t *testing.T, backend iptables.Backend) *scene {
	t.Helper()
	s := walkThroughScene(t, backend)
	s.enforcer.limit = testLimit
	s.namespace("hostile", nil)
	s.pod("hostile", "attacker", map[string]string{"app": "attacker"}, "10.244.1.20", "fd00:10:244:1::20")
	s.apply("metadata: {name: harmless, namespace: hostile}\nspec: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 81}]}]}")
	s.crowdOfPolicies(3)
	s.sync()
	s.requireTCP(true, "busybox", "attacker", 81)
	return s
}

// killingPolicy has most of the rules that change, one of which is for port 6666.
func killingPolicy(name string) string {
	text := "metadata: {name: " + name + ", namespace: hostile}\nspec: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 81}]}"
	for port := range 30 {
		text += fmt.Sprintf(", {ports: [{port: %d}]}", 6666+2*port)
	}
	return text + "]}"
}

// killings say how iptables-restore ends for the killing policy.
var killings = map[string]string{
	"by time":       `case $script in *6666*) sleep 60;; esac`,
	"out of memory": `case $script in *6666*) kill -9 $$;; esac`,
}

// search syncs until so many policies are in quarantine. On a busy machine a sync finds no
// culprit, since a busy node would end programs too, or has no time to find all.
func (s *scene) search(faulty int) {
	s.t.Helper()
	var err error
	for range 8 {
		if err = s.trySync(); err == nil && len(s.quarantined()) == faulty {
			return
		}
	}
	require.NoError(s.t, err)
	require.Len(s.t, s.quarantined(), faulty)
}

// A policy for which iptables-restore is killed closes the pods of its own, and nobody
// else's change waits for it again: not for its retries, nor for edits of it, nor for
// further policies of its namespace.
func TestAPolicyThatKillsIptablesHoldsBackNoOtherNamespace(t *testing.T) {
	for how, commands := range killings {
		for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
			if how == "by time" && backend == iptables.Legacy {
				continue // takes as many seconds as with nft, and the same ways
			}
			t.Run(how+", "+string(backend), func(t *testing.T) {
				trouble := troubled(t, commands)
				s := killedScene(t, backend)
				s.label("test-np", map[string]string{"role": "db"})
				s.apply(walkThrough)
				s.apply(killingPolicy("killing"))
				s.search(1)
				require.Equal(t, []policyID{{"hostile/killing", 1}}, s.quarantined())
				s.requireWalkThrough()
				s.requireTCP(false, "busybox", "attacker", 81)
				s.requireTCP(true, "busybox", "neighbour", 81)
				status := observed(report.New(nil, nil, "node-1", logr.Discard()), s.enforcer.view, nil)
				require.Equal(t, "hostile/killing!RestoreFailed", reporttest.List(&v1alpha1.NodeEnforcementStatus{Failures: status.Failures}))

				s.enforcer.debts.Charge("hostile", pacing.DebtFree, time.Now()) // as the real limit would
				edited := s.policies["killing"].DeepCopy()
				edited.Generation = 2
				s.model.SetPolicy(policy.ParseNetworkPolicy(edited))
				s.apply(killingPolicy("another"))
				s.remove("neighbour")
				start, before := time.Now(), s.restores()
				s.sync()
				require.Less(t, time.Since(start), testLimit, "another try was made")
				require.LessOrEqual(t, s.restores()-before, 2.0)
				s.requireTCP(true, "busybox", "neighbour", 80)
				s.requireTCP(false, "busybox", "attacker", 81)
				require.ElementsMatch(t, []policyID{{"hostile/killing", 2}, {"hostile/another", 1}}, s.quarantined())
				require.ErrorContains(t, s.enforcer.view.refused["hostile/another"], "policies of namespace hostile took the node so much time")

				// Later all are tried again, and work.
				require.NoError(t, os.Remove(trouble))
				clear(s.enforcer.debts.Of)
				for id := range s.enforcer.quarantine {
					s.enforcer.quarantine[id].retry = time.Now()
				}
				s.sync()
				require.Empty(t, s.quarantined())
				s.requireTCP(true, "busybox", "attacker", 81)
			})
		}
	}
}

// Deleting a policy for which iptables-restore is killed takes effect at once.
func TestDeletingAPolicyThatKillsIptables(t *testing.T) {
	troubled(t, killings["out of memory"])
	s := killedScene(t, iptables.NFT)
	s.apply(killingPolicy("killing"))
	s.search(1)
	s.requireTCP(false, "busybox", "attacker", 81)
	s.enforcer.debts.Charge("hostile", time.Hour, time.Now())
	s.remove("killing")
	s.sync()
	require.Empty(t, s.quarantined())
	s.requireTCP(true, "busybox", "attacker", 81)
}

// Several policies kill it, and none of them has the most rules.
func TestSeveralPoliciesThatKillIptables(t *testing.T) {
	troubled(t, `case $script in *6666*|*7777*) kill -9 $$;; esac`)
	s := killedScene(t, iptables.NFT)
	s.apply(killingPolicy("large"))
	large := s.policies["large"]
	for i := range large.Spec.Ingress {
		large.Spec.Ingress[i].Ports[0].Port.IntVal %= 6000 // 81, 666, 668, ...
	}
	modeltest.See(s.model, large)
	for i, port := range []int{6666, 7777} {
		s.apply(fmt.Sprintf("metadata: {name: killing-%d}\nspec: {podSelector: {matchLabels: {local: %q}}, policyTypes: [Ingress], ingress: [{ports: [{port: %d}]}]}", i, fmt.Sprint(i), port))
	}
	s.search(2)
	require.ElementsMatch(t, []policyID{{"default/killing-0", 1}, {"default/killing-1", 1}}, s.quarantined())
	s.requireTCP(true, "busybox", "attacker", 81)
}

// On a busy node iptables-restore is killed too, or takes longer than a third of its limit.
// Nobody is closed for that, and everything is in force once the node is calm.
func TestABusyNodeClosesNobody(t *testing.T) {
	for how, commands := range map[string]string{
		"killed": `sleep 60`,
		"slow":   `case $script in *6666*) sleep 60;; esac; sleep 1`,
	} {
		t.Run(how, func(t *testing.T) {
			s := killedScene(t, iptables.NFT)
			s.apply("metadata: {name: second}\nspec: {podSelector: {matchLabels: {app: neighbour}}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}, {port: 7070}]}]}")
			s.apply(killingPolicy("killing"))
			trouble := troubled(t, commands)
			s.enforcer.close() // finds its programs again
			require.ErrorContains(t, s.trySync(), "after "+testLimit.String())
			require.Empty(t, s.quarantined())
			require.Empty(t, s.enforcer.debts.Of)
			s.requireTCP(true, "busybox", "neighbour", 81)
			s.requireTCP(true, "busybox", "attacker", 81)
			require.NoError(t, os.Remove(trouble))
			s.sync()
			s.requireTCP(true, "busybox", "attacker", 81)
			s.requireTCP(true, "busybox", "neighbour", 80)
		})
	}
}
