package dataplane

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// comeToRest makes passes until an inspection finds everything as it was left.
func (s *scene) comeToRest() {
	s.t.Helper()
	for range 5 {
		if s.inspect(); s.enforcer.trusted {
			return
		}
		s.sync()
	}
	require.True(s.t, s.enforcer.trusted, "an inspection finds nothing to repair for ever")
}

// inspect is what the running agent does every few seconds, without the pass.
func (s *scene) inspect() {
	require.NoError(s.t, s.node.Do(func() error { s.enforcer.inspect(); return nil }))
}

func (s *scene) restores() float64 {
	series := metricstest.Scrape(s.t, s.enforcer.metrics)
	return series["iptables_restores_total success"] + series["iptables_restores_total error"]
}

// hook returns the rule of a built-in chain that leads to Moat's, as it is while a pod is
// isolated.
func hook(builtin string) string { return "-j MOAT-" + builtin }

// earlyHook is that of PREROUTING.
const earlyHook = "-m pkttype ! --pkt-type unicast -j MOAT_PREROUTING"

// Every kind of damage shows in an inspection, and so is repaired within five
// seconds. What isn't Moat's doesn't matter.
func TestAnInspectionSeesDamage(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.label("busybox", map[string]string{"role": "frontend"})
		s.apply(walkThrough)
		s.sync()
		s.comeToRest()
		healthy := withoutCounters(s.dump())
		peers := s.setHolding("10.244.2.10")
		const egress = "-m set --match-set moat-4-egress src -j MOAT-EGRESS"
		damage := map[string][]string{
			"hook deleted":      {"iptables -D FORWARD " + hook("FORWARD")},
			"IPv6 hook deleted": {"ip6tables -D INPUT " + hook("INPUT")},
			"hook not first":    {"iptables -D FORWARD " + hook("FORWARD"), "iptables -A FORWARD -j ACCEPT", "iptables -A FORWARD " + hook("FORWARD")},
			"hook twice":        {"iptables -A FORWARD " + hook("FORWARD")},
			"hook for some":     {"iptables -R FORWARD 1 -m conntrack ! --ctstate RELATED,ESTABLISHED -j MOAT-FORWARD"},
			"early hook gone":   {"ip6tables -F PREROUTING"},
			"early hook twice":  {"iptables -A PREROUTING " + earlyHook},
			"early hook later":  {"iptables -D PREROUTING " + earlyHook, "iptables -A PREROUTING -j RETURN", "iptables -A PREROUTING " + earlyHook},
			"early chain empty": {"iptables -F MOAT_PREROUTING"},
			"chain flushed":     {"iptables -F MOAT-INGRESS"},
			"rule added":        {"ip6tables -I MOAT-FORWARD 1 -j ACCEPT"},
			"rule removed":      {"iptables -D MOAT-FORWARD 1"},
			"rules in disorder": {"iptables -D MOAT-FORWARD " + egress, "iptables -A MOAT-FORWARD " + egress},
			"rule replaced":     {"iptables -R MOAT-INPUT 1 -j RETURN"},
			"stale chain":       {"iptables -N MOAT-OLD"},
			"table flushed":     {"iptables -F", "iptables -X"},
			"set flushed":       {"ipset flush moat-4-ingress"},
			"set polluted":      {"ipset add moat-4-ingress 10.244.1.11"},
			"peers flushed":     {"ipset flush " + peers},
			"peers polluted":    {"ipset add " + peers + " 10.9.9.9"},
			"set destroyed":     {"iptables -F", "iptables -X", "ipset destroy " + peers},
			"set made":          {"ipset create moat-4-p-old hash:ip"},
			"nft table deleted": {"nft delete table ip mangle"},
		}
		for name, commands := range damage {
			if backend == iptables.Legacy && strings.HasPrefix(commands[0], "nft ") {
				continue
			}
			t.Run(name, func(t *testing.T) {
				for _, command := range commands {
					s.damage(command)
				}
				s.inspect()
				require.False(t, s.enforcer.trusted, "the inspection sees it")
				s.sync()
				s.requirePing(false, "neighbour", "test-np")
				s.requirePing(true, "busybox", "test-np")
				if name == "hook not first" {
					s.damage("iptables -D FORWARD -j ACCEPT")
				}
				if name == "early hook later" {
					s.damage("iptables -D PREROUTING -j RETURN")
				}
				require.Equal(t, healthy, withoutCounters(s.dump()))
				s.comeToRest()
			})
		}
		t.Run("others' rules", func(t *testing.T) {
			before := s.restores()
			for _, command := range []string{"-t filter -N NEIGHBOUR", "-t filter -A FORWARD -j NEIGHBOUR", "-t nat -N NEIGHBOUR"} {
				s.run(string(backend), strings.Fields(command)...)
			}
			s.run("ipset", "create", "neighbour", "hash:ip")
			s.inspect()
			require.True(t, s.enforcer.trusted, "they are no reason to read everything")
			s.sync()
			require.Equal(t, before, s.restores())
		})
	})
}

// damage runs a command of the scene's backend, in the mangle table.
func (s *scene) damage(command string) {
	s.t.Helper()
	words := strings.Fields(command)
	if program := words[0]; strings.HasSuffix(program, "tables") {
		words[0] = strings.Replace(string(s.enforcer.backend), "iptables", program, 1)
		words = append([]string{words[0], "-t", "mangle"}, words[1:]...)
	}
	s.run(words[0], words[1:]...)
}

// What no sign shows, a full read on a slow timer does: elements that somebody
// exchanged.
func TestTheSlowTimerSeesWhatShowsNowhere(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	s.comeToRest()
	s.run("ipset", "del", "moat-4-ingress", "10.244.1.10")
	s.run("ipset", "add", "moat-4-ingress", "10.244.1.11")
	s.inspect()
	require.True(t, s.enforcer.trusted, "it has as many elements as before")
	s.enforcer.inspection.readAt = time.Now().Add(-readEvery)
	s.inspect()
	require.False(t, s.enforcer.trusted)
	s.sync()
	s.requirePing(false, "neighbour", "test-np")
	s.requirePing(true, "busybox", "neighbour")
}

// Where the node goes over to the other backend an inspection sees it.
func TestAnInspectionSeesTheOtherBackend(t *testing.T) {
	s, _, _ := switchingScene(t, "")
	s.run("iptables-legacy", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
	s.sync()
	s.comeToRest()
	s.requireOnlyIn(iptables.Legacy)
	s.run("iptables-nft", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
	s.inspect()
	require.False(t, s.enforcer.trusted)
	s.sync()
	s.requireOnlyIn(iptables.NFT)
	s.comeToRest()
	s.run("iptables-nft", "-t", "mangle", "-X", "KUBE-IPTABLES-HINT")
	s.inspect()
	s.sync()
	s.requireOnlyIn(iptables.Legacy)
}

// Changes of the model make no inspection suspicious, whatever they write to sets,
// and rules that were written are read back once.
func TestAnInspectionTrustsItsOwnWrites(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	s.comeToRest()
	for i := range 10 {
		s.label("busybox", map[string]string{"role": []string{"frontend", "none"}[i%2]})
		s.sync()
		s.inspect()
		require.True(t, s.enforcer.trusted, "only sets were written")
	}
	s.apply(strings.Replace(walkThrough, "port: 80", "port: 81", 1))
	s.sync()
	s.inspect()
	require.False(t, s.enforcer.trusted, "rules were written")
	s.sync()
	s.inspect()
	require.True(t, s.enforcer.trusted)
}

// largeNode has isolated pods with policies of their own: some 4,000 rules and
// 2,000 sets.
func largeNode(s *scene, pods, peers int) {
	for i := range pods {
		pod := policytest.PodObject(fmt.Sprintf("local-%d", i), thisNode, fmt.Sprintf("10.244.1.%d", 20+i))
		pod.Namespace, pod.Labels = "default", map[string]string{"local": fmt.Sprint(i)}
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf("fd00:10:244:1::%x", 20+i)})
		s.model.SetPod(policy.ParsePod(pod))
		var text strings.Builder
		fmt.Fprintf(&text, "metadata: {name: large-%d}\nspec:\n  podSelector: {matchLabels: {local: %q}}\n  policyTypes: [Ingress]\n  ingress:\n", i, fmt.Sprint(i))
		for j := range peers {
			fmt.Fprintf(&text, "  - {from: [{podSelector: {matchLabels: {role: r%d-%d}}}], ports: [{port: 80}]}\n", i, j)
			fmt.Fprintf(&text, "  - {from: [{podSelector: {matchLabels: {role: r%d-%d}}}], ports: [{port: 81, protocol: UDP}]}\n", i, j)
		}
		s.apply(text.String())
	}
	for i := range 1000 {
		peer := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("peer-%d", i), Labels: map[string]string{"role": fmt.Sprintf("r%d-%d", i%pods, i%peers)}}}
		peer.Spec.NodeName = "elsewhere"
		peer.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.245.%d.%d", i/250, i%250+1)}}
		s.model.SetPod(policy.ParsePod(peer))
	}
}

// processorTime is what this process and the programs that it started have used.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var total time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var usage unix.Rusage
		require.NoError(t, unix.Getrusage(who, &usage))
		total += time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return total
}

// The test says what an idle agent takes of one core for its looks and for its full
// reads, on a node with 4,000 rules and 2,000 sets. Run it alone:
// MOAT_MEASURE=1 go test ./dataplane -v -run TestWhatAnIdleNodeCosts
func TestWhatAnIdleNodeCosts(t *testing.T) {
	if os.Getenv("MOAT_MEASURE") == "" {
		t.Skip("measures the processor time of this process: MOAT_MEASURE=1 runs it")
	}
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		s := newScene(t, backend)
		s.namespace("default", nil)
		largeNode(s, 100, 10)
		s.sync()
		s.comeToRest()
		series := func() map[string]float64 {
			s.enforcer.metrics.Show(s.enforcer.snapshot(0))
			return metricstest.Scrape(t, s.enforcer.metrics)
		}()
		t.Logf("%s: %.0f and %.0f rules, %.0f and %.0f sets", backend, series["iptables_rules IPv4"], series["iptables_rules IPv6"], series["ipset_sets IPv4"], series["ipset_sets IPv6"])
		measure := func(what string, rounds int, every time.Duration, before func()) float64 {
			start := processorTime(t)
			require.NoError(t, s.node.Do(func() error {
				for range rounds {
					before()
					if err := s.enforcer.sync(context.Background(), s.model); err != nil {
						return err
					}
				}
				return nil
			}))
			each := (processorTime(t) - start) / time.Duration(rounds)
			t.Logf("%s: %s: %v, every %v %.2f %% of a core", backend, what, each, every, 100*each.Seconds()/every.Seconds())
			return each.Seconds() / every.Seconds()
		}
		full := measure("full read", 5, readEvery, s.enforcer.distrust)
		cheap := measure("inspection", 20, resyncEvery, s.enforcer.inspect)
		require.True(t, s.enforcer.trusted)
		measure("inspection after others wrote nft rules", 5, resyncEvery, func() {
			s.run("iptables-nft", "-t", "raw", "-A", "OUTPUT", "-j", "ACCEPT")
			s.enforcer.inspect()
			require.True(t, s.enforcer.trusted)
		})
		t.Logf("%s: together %.2f %% of a core", backend, 100*(full+cheap))
		require.Less(t, full+cheap, 0.01, "one per cent of a core")
	}
}
