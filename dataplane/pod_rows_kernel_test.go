package dataplane

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// A policy that lets the frontend of its namespace reach the databases, in both
// directions.
const frontendOnly = `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress],
  ingress: [{from: [{podSelector: {matchLabels: {role: frontend}}}]}], egress: [{to: [{podSelector: {matchLabels: {role: frontend}}}]}]}`

// TestPodSemantics shows the rules that depend on more than a policy's text: what a
// pod is, where it runs and which phase it is in.
func TestPodSemantics(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name string
		show func(s *scene)
	}{
		{"host -> own pod is always allowed (kube-network-policies 65)", showHostReachesItsPods},
		{"pod -> own node passes the pod's egress rules (kube-router 891)", showPodToItsNode},
		{"a hostNetwork pod is never selected and never a peer (k3s 3535, kube-network-policies 380)", showHostNetwork},
		{"the next owner of a Succeeded pod's address inherits nothing (kube-router 1056, antrea 6507)", showAddressReused},
		{"a Terminating pod stays enforced and stays a peer", showTerminating},
		{"a pod of both families is judged in each", showDualStack},
		{"ICMPv6 neighbour discovery works between isolated pods (kube-router 1701)", showNeighbourDiscovery},
		{"SCTP that conntrack calls INVALID is judged by the rules", showInvalidSCTP},
	}
	backends(t, func(t *testing.T, backend iptables.Backend) {
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				t.Parallel()
				s := rowScene(t, backend)
				row.show(s)
			})
		}
	})
}

func showHostReachesItsPods(s *scene) {
	s.enforce(`{podSelector: {}, policyTypes: [Ingress, Egress]}`)
	db := s.hosts["db"]
	for _, addr := range db.Addrs {
		require.True(s.t, s.node.Ping(addr, answerWithin))
		require.True(s.t, s.node.TCP(addr, 80, answerWithin), "a probe of the kubelet")
		require.True(s.t, s.node.UDP(addr, 53, answerWithin))
	}
}

func showPodToItsNode(s *scene) {
	s.node.ServeTCP(s.t, 80)
	s.node.ServeTCP(s.t, 81)
	s.enforce(dbEgress + `[{to: [{ipBlock: {cidr: 10.244.1.1/32}}, {ipBlock: {cidr: "fd00:10:244:1::1/128"}}], ports: [{port: 80}]}]}`)
	for _, addr := range s.node.Addrs {
		require.True(s.t, s.hosts["db"].TCP(addr, 80, answerWithin))
		require.False(s.t, s.hosts["db"].TCP(addr, 81, silentAfter))
		require.False(s.t, s.hosts["db"].Ping(addr, silentAfter))
		require.True(s.t, s.hosts["batch"].TCP(addr, 81, answerWithin))
	}
}

// hostNetworkPods adds a pod in the network of this node, and one in that of
// another node, which has the address of the office.
func (s *scene) hostNetworkPods(labels map[string]string) {
	for name, addrs := range map[string][]corev1.PodIP{
		"agent-here":      {{IP: nodetest.NodeAddr4.String()}, {IP: nodetest.NodeAddr6.String()}},
		"agent-elsewhere": {{IP: "172.17.0.10"}, {IP: "2001:db8:17::10"}},
	} {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: labels}}
		pod.Spec.HostNetwork, pod.Spec.NodeName, pod.Status.PodIPs = true, thisNode, addrs
		if name == "agent-elsewhere" {
			pod.Spec.NodeName = "elsewhere"
		}
		pod.Spec.Containers = containersServing(80)
		s.update(pod)
	}
}

func showHostNetwork(s *scene) {
	s.node.ServeTCP(s.t, 80)
	s.hostNetworkPods(map[string]string{"role": "frontend"})
	s.enforce(frontendOnly)
	s.requireFates([]string{"frontend -> db tcp/80", "worker -> db tcp/80"}, []string{"office -> db ping", "office -> db tcp/80", "db -> office tcp/80"})
	for _, addr := range s.node.Addrs {
		require.False(s.t, s.hosts["db"].TCP(addr, 80, silentAfter), "the pod on the node's network is no peer")
	}

	s.enforce(`{podSelector: {}, policyTypes: [Ingress, Egress]}`)
	for _, addr := range s.node.Addrs {
		require.True(s.t, s.hosts["office"].TCP(addr, 80, answerWithin), "the node is not isolated")
	}
	require.NotContains(s.t, s.run("ipset", "save"), " "+nodetest.NodeAddr4.String()+"\n")

	s.enforce(dbIngress + `[{from: [{ipBlock: {cidr: 172.17.0.10/32}}, {ipBlock: {cidr: "2001:db8:17::10/128"}}]}]}`)
	s.requireFates([]string{"office -> db tcp/80"}, []string{"excepted -> db tcp/80"})
}

func showAddressReused(s *scene) {
	s.enforce(frontendOnly)
	s.requireFates([]string{"frontend -> db tcp/80"}, []string{"batch -> db tcp/80"})

	// The peer has ended, its address belongs to a pod that is no peer.
	for _, phase := range []corev1.PodPhase{corev1.PodSucceeded, corev1.PodFailed} {
		ended := s.pods["frontend"].DeepCopy()
		ended.Status.Phase = phase
		s.update(ended)
		newOwner := ended.DeepCopy()
		newOwner.Name, newOwner.Labels, newOwner.Status.Phase = "next", map[string]string{"role": "next"}, corev1.PodRunning
		s.update(newOwner)
		s.sync()
		s.requireFates([]string{"worker -> db tcp/80"}, []string{"frontend -> db tcp/80", "db -> frontend ping"})
	}

	// A database has ended, its address belongs to a pod that nobody isolates.
	ended := s.pods["db"].DeepCopy()
	ended.Status.Phase = corev1.PodSucceeded
	s.update(ended)
	newOwner := ended.DeepCopy()
	newOwner.Name, newOwner.Labels, newOwner.Status.Phase = "newOwner-of-db", nil, corev1.PodRunning
	s.update(newOwner)
	s.sync()
	s.hosts["newOwner-of-db"] = s.hosts["db"]
	s.requireFates([]string{"batch -> newOwner-of-db tcp/80", "newOwner-of-db -> office ping"}, []string{"batch -> replica tcp/80"})

	// The ended pod's object goes at last: its successor keeps the address.
	modeltest.Lose(s.model, s.pods["db"])
	delete(s.pods, "db")
	s.enforce(`{podSelector: {}, policyTypes: [Ingress]}`)
	s.requireFates(nil, []string{"batch -> newOwner-of-db tcp/80", "office -> newOwner-of-db ping"})
}

func showTerminating(s *scene) {
	s.enforce(frontendOnly)
	for _, name := range []string{"db", "frontend", "worker"} {
		pod := s.pods[name].DeepCopy()
		pod.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		s.update(pod)
	}
	s.sync()
	s.requireFates([]string{"frontend -> db tcp/80", "worker -> db ping", "db -> worker tcp/80"}, []string{"batch -> db tcp/80", "db -> batch ping"})
}

func showDualStack(s *scene) {
	s.pod("default", "six", map[string]string{"role": "six"}, "10.244.1.20", "fd00:10:244:1::20")
	only6 := s.pods["six"].DeepCopy()
	only6.Status.PodIPs = only6.Status.PodIPs[1:]
	s.update(only6)
	s.enforce(dbIngress+`[{from: [{podSelector: {matchLabels: {role: six}}}]}]}`, `{podSelector: {matchLabels: {role: six}}, policyTypes: [Ingress]}`)
	s.requireFates([]string{"six -> db tcp/80 (IPv6)", "batch -> six tcp/80 (IPv4)"}, []string{"six -> db tcp/80 (IPv4)", "batch -> six tcp/80 (IPv6)"})
}

// flushNeighbours makes everybody look for their neighbours again.
func (s *scene) flushNeighbours(names ...string) {
	s.t.Helper()
	s.run("ip", "neigh", "flush", "dev", "cni0")
	for _, name := range names {
		runIn(s.t, s.hosts[name], "ip", "neigh", "flush", "dev", "eth0")
	}
}

func showNeighbourDiscovery(s *scene) {
	s.enforce(`{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: 80}]}], egress: [{ports: [{port: 80}]}]}`)
	for range 3 {
		s.flushNeighbours("db", "batch")
		s.requireFates([]string{"batch -> db tcp/80", "db -> batch tcp/80", "db -> office tcp/80"}, []string{"batch -> db ping"})
	}
}

func showInvalidSCTP(s *scene) {
	s.enforce(dbIngress + `[{ports: [{protocol: SCTP, port: 80}]}]}`)
	for _, addr := range s.hosts["db"].Addrs {
		require.True(s.t, s.hosts["office"].DamagedSCTP(addr, 80, answerWithin))
		require.False(s.t, s.hosts["office"].DamagedSCTP(addr, 81, silentAfter))
	}
}
