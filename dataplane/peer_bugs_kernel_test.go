package dataplane

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
)

// TestBugsOfPeers shows that what other programs got wrong is right here. Bugs
// that are a matter of what a policy means have their number in a row of
// TestSemantics or TestPodSemantics.
func TestBugsOfPeers(t *testing.T) {
	t.Parallel()
	bugs := []struct {
		name string
		show func(s *scene)
	}{
		{"kube-router 1248, 1370, 1677: rules and sets of other programs stay as they are", showOthersUntouched},
		{"k3s 3117: a hundred syncs leave one jump", showOneJump},
		{"kube-router 1777, calico 8025: chains of native nft rules are left alone", showNativeChains},
		{"kube-router 1777, calico 8025: a native nft rule in FORWARD is reported, the rules stay", showNativeRuleInForward},
		{"calico 5760, kube-router 1069: rules of the other backend stay and change nothing", showOtherBackend},
		{"kube-router 945: chains that are left over go", showLeftoversGo},
		{"kube-router 1068: no set is empty for a moment", showNoGap},
		{"kube-router 1081: two agents at once end in the right state", showTwoAgents},
		{"kube-router 1521: a set in use by others doesn't stop a sync", showSetInUse},
		{"kube-router 378: a pod without address freezes no set", showPodWithoutAddress},
		{"kops 4047: a chain that accepts everything comes after the hook, wherever it is", showFlannelAccepts},
		{"kube-router 685: path MTU is found by isolated pods", showPathMTU},
		{"names that begin alike, and are as long as they can be", showLongNames},
	}
	backends(t, func(t *testing.T, backend iptables.Backend) {
		for _, bug := range bugs {
			t.Run(bug.name, func(t *testing.T) {
				t.Parallel()
				s := walkThroughScene(t, backend)
				s.label("test-np", map[string]string{"role": "db"})
				bug.show(s)
			})
		}
	})
}

// commands are the iptables programs of the scene's backend, one per family.
func (s *scene) commands() []string {
	name := string(s.enforcer.requested)
	return []string{name, strings.Replace(name, "iptables", "ip6tables", 1)}
}

// requireWalkThrough probes what the policy of the walk-through means.
func (s *scene) requireWalkThrough() {
	s.t.Helper()
	s.requireFates(
		[]string{"neighbour -> test-np tcp/80", "project -> test-np ping", "neighbour -> busybox ping"},
		[]string{"neighbour -> test-np ping", "busybox -> test-np tcp/81", "test-np -> neighbour tcp/80"})
}

func showOthersUntouched(s *scene) {
	command := s.commands()[0]
	s.run(command, "-N", "FLANNEL-FWD")
	s.run(command, "-A", "FORWARD", "-m", "comment", "--comment", "flanneld forward", "-j", "FLANNEL-FWD")
	s.run(command, "-A", "FLANNEL-FWD", "-s", "10.244.0.0/16", "-m", "comment", "--comment", "it's \"quoted\"", "-j", "ACCEPT")
	s.run(command, "-t", "nat", "-A", "POSTROUTING", "-s", "10.244.0.0/16", "!", "-d", "224.0.0.0/4", "-j", "MASQUERADE")
	s.run(command, "-t", "mangle", "-A", "FORWARD", "-p", "tcp", "--tcp-flags", "SYN,RST", "SYN", "-j", "TCPMSS", "--clamp-mss-to-pmtu")
	s.run("ipset", "create", "foreign", "hash:net")
	s.run("ipset", "add", "foreign", "10.9.0.0/16")
	before := foreignLines(s.run(command + "-save"))
	for range 10 {
		s.apply(walkThrough)
		s.sync()
		require.Equal(s.t, before, foreignLines(s.run(command+"-save")))
		s.requirePing(false, "neighbour", "test-np")
		s.remove("test-network-policy")
		s.enforcer.distrust()
		s.sync()
	}
	require.Equal(s.t, before, foreignLines(s.run(command+"-save")))
	require.Contains(s.t, s.run("ipset", "save", "foreign"), "10.9.0.0/16")
}

func showOneJump(s *scene) {
	s.apply(walkThrough)
	for i := range 100 {
		if i%10 == 0 {
			s.label("neighbour", map[string]string{"round": fmt.Sprint(i)})
		}
		s.enforcer.distrust()
		s.sync()
	}
	for _, command := range s.commands() {
		dump := s.run(command+"-save", "-t", "mangle")
		for _, jump := range []string{"-A FORWARD " + hook("FORWARD") + "\n", "-A INPUT " + hook("INPUT") + "\n"} {
			require.Equal(s.t, 1, strings.Count(dump, jump), "%s\n%s", jump, dump)
		}
	}
	s.requireWalkThrough()
}

func showOtherBackend(s *scene) {
	other := "iptables-legacy"
	if s.commands()[0] == other {
		other = "iptables-nft"
	}
	s.run(other, "-N", "KUBE-FORWARD")
	s.run(other, "-A", "FORWARD", "-j", "KUBE-FORWARD")
	s.run(other, "-A", "KUBE-FORWARD", "-s", "10.244.0.0/16", "-j", "ACCEPT")
	before := foreignLines(s.run(other + "-save"))
	s.apply(walkThrough)
	s.sync()
	s.requireWalkThrough()
	require.Equal(s.t, before, foreignLines(s.run(other+"-save")))
	require.NotContains(s.t, s.run(other+"-save"), "MOAT-")
}

func showLeftoversGo(s *scene) {
	for _, command := range s.commands() {
		for i := range 20 {
			s.run(command, "-t", "mangle", "-N", fmt.Sprintf("MOAT-I-%d", i))
		}
		s.run(command, "-t", "mangle", "-A", "MOAT-I-1", "-j", "MOAT-I-2")
	}
	s.run("ipset", "create", "moat-4-p-old", "hash:ip")
	s.apply(walkThrough)
	s.sync()
	clean := withoutCounters(s.dump())
	require.NotContains(s.t, clean, "MOAT-I-2\n")
	require.NotContains(s.t, s.run("ipset", "list", "-n"), "moat-4-p-old")
	for range 20 {
		s.apply(strings.Replace(walkThrough, "port: 80", "port: 81", 1))
		s.sync()
		s.apply(walkThrough)
		s.sync()
	}
	require.Equal(s.t, clean, withoutCounters(s.dump()), "changes leave nothing behind")
	s.requireWalkThrough()
}

func showNoGap(s *scene) {
	s.label("busybox", map[string]string{"role": "frontend"})
	s.apply(walkThrough)
	s.sync()
	stop := make(chan struct{})
	var lost, sent int
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			sent++
			// Each datagram comes from a port of its own: nothing is established.
			if !s.hosts["busybox"].UDP(s.hosts["test-np"].Addrs[0], 53, answerWithin) {
				lost++
			}
		}
	})
	for i := range 40 {
		// The peer's set changes, and so do the policy's chains.
		s.label("neighbour", map[string]string{"role": []string{"frontend", "other"}[i%2]})
		s.apply(strings.Replace(walkThrough, "port: 80", fmt.Sprintf("port: %d", 80+i%3), 1))
		if i%4 == 0 {
			s.enforcer.distrust()
		}
		s.sync()
	}
	close(stop)
	wait.Wait()
	require.Zero(s.t, lost, "of %d", sent)
	require.Greater(s.t, sent, 40)
}

// Both write at once now and then, as when an agent is replaced; each may meet the
// other's half-made change, and tries again.
func showTwoAgents(s *scene) {
	second := newEnforcer(s.enforcer.requested)
	other := node.New(thisNode)
	s.t.Cleanup(func() {
		if second.sets != nil {
			second.sets.Close()
		}
	})
	s.apply(walkThrough)
	for _, pod := range s.pods {
		modeltest.See(other, pod)
	}
	for _, namespace := range s.namespaces {
		modeltest.See(other, namespace)
	}
	for _, np := range s.policies {
		modeltest.See(other, np)
	}
	var wait sync.WaitGroup
	for _, agent := range []struct {
		enforcer *enforcer
		model    *node.Model
	}{{s.enforcer, s.model}, {second, other}} {
		wait.Go(func() {
			for range 10 {
				agent.enforcer.distrust()
				_ = s.node.Do(func() error { return agent.enforcer.sync(s.t.Context(), agent.model) })
			}
		})
	}
	wait.Wait()
	s.enforcer.distrust()
	s.sync()
	s.requireWalkThrough()
}

func showSetInUse(s *scene) {
	s.apply(walkThrough)
	s.sync()
	var inUse string
	for _, name := range strings.Fields(s.run("ipset", "list", "-n")) {
		if strings.HasPrefix(name, "moat-4-p-") {
			inUse = name
		}
	}
	require.NotEmpty(s.t, inUse)
	command := s.commands()[0]
	s.run(command, "-t", "mangle", "-A", "FORWARD", "-m", "set", "--match-set", inUse, "src")

	s.remove("test-network-policy")
	s.apply("metadata: {name: closed}\nspec: {podSelector: {}, policyTypes: [Ingress]}")
	s.sync()
	s.requireFates(nil, []string{"project -> test-np ping", "busybox -> neighbour tcp/80"})

	s.run(command, "-t", "mangle", "-F")
	s.enforcer.distrust()
	s.sync()
	require.NotContains(s.t, s.run("ipset", "list", "-n"), inUse)
}

func showPodWithoutAddress(s *scene) {
	s.apply(walkThrough)
	pending := s.pods["busybox"].DeepCopy()
	pending.Labels, pending.Status.PodIPs, pending.Status.Phase = map[string]string{"role": "frontend"}, nil, corev1.PodPending
	s.update(pending)
	s.label("neighbour", map[string]string{"role": "frontend"})
	s.sync()
	s.requireFates([]string{"neighbour -> test-np ping"}, []string{"busybox -> test-np ping"})

	running := pending.DeepCopy()
	running.Status.PodIPs, running.Status.Phase = []corev1.PodIP{{IP: "10.244.2.10"}, {IP: "fd00:10:244:2::10"}}, corev1.PodRunning
	s.update(running)
	s.sync()
	s.requireFates([]string{"busybox -> test-np ping", "neighbour -> test-np ping"}, nil)
}

func showFlannelAccepts(s *scene) {
	for _, command := range s.commands() {
		s.run(command, "-N", "FLANNEL-FWD")
		s.run(command, "-A", "FLANNEL-FWD", "-j", "ACCEPT")
		s.run(command, "-A", "FORWARD", "-j", "FLANNEL-FWD")
	}
	s.apply(walkThrough)
	s.sync()
	s.requireWalkThrough()
	for _, command := range s.commands() { // Flannel starts again, and inserts
		s.run(command, "-I", "FORWARD", "1", "-j", "FLANNEL-FWD")
	}
	s.requireWalkThrough() // at once, without a repair
}

// Names differ in their last character only, 253 being the most that the API
// allows.
func showLongNames(s *scene) {
	long := strings.Repeat("a", 252)
	allow := func(name, role string) {
		s.apply(fmt.Sprintf("metadata: {name: %s}\nspec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {role: %s}}}]}]}", name, role))
	}
	label := strings.Repeat("b", 62)
	s.label("neighbour", map[string]string{"role": label + "1"})
	s.label("busybox", map[string]string{"role": label + "2"})
	allow(long+"1", label+"1")
	allow(long+"2", "nobody")
	allow("aa", "nobody")
	s.sync()
	s.requireFates([]string{"neighbour -> test-np ping"}, []string{"busybox -> test-np ping"})
	allow(long+"2", label+"2")
	s.sync()
	s.requireFates([]string{"neighbour -> test-np ping", "busybox -> test-np ping"}, []string{"project -> test-np ping"})
	s.remove(long + "1")
	s.sync()
	s.requireFates([]string{"busybox -> test-np ping"}, []string{"neighbour -> test-np ping"})
}

func showPathMTU(s *scene) {
	const mtu, port = 1300, 8080
	s.hosts["far"] = s.node.AddBehindRouter(s.t, mtu, "198.51.100.10", "2001:db8:99::10")
	server := s.hosts["test-np"]
	server.ServeBytes(s.t, port, 256<<10)
	s.apply("metadata: {name: only-tcp}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 8080}]}]}")
	s.sync()
	for _, addr := range server.Addrs {
		require.Equal(s.t, 256<<10, s.hosts["far"].ReadTCP(addr, port, 5*time.Second), "a router on the way says that packets are too big")
		learned := runIn(s.t, server, "ip", "route", "get", s.hosts["far"].Addr(addr).String())
		require.Contains(s.t, learned, fmt.Sprintf("mtu %d", mtu))
	}
}
