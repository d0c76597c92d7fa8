package dataplane

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// impossible are addresses that no pod has, as a status may show them.
var impossible = [][]string{
	{"0.0.0.0", "::"},
	{"127.0.0.1", "::1"},
	{"224.0.0.5", "ff02::5"},
	{"169.254.1.1", "fe80::5"},
	{"255.255.255.255"},
	{"::ffff:0.0.0.0"},
	{"10.244.1.1", "fd00:10:244:1::1"}, // the node's own
}

// showOdd makes the API show a pod with each of the impossible addresses on a node.
func (s *scene) showOdd(node string, labels map[string]string) {
	for i, addrs := range impossible {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("odd-%s-%d", node, i), Labels: labels}}
		pod.Spec.NodeName = node
		for _, addr := range addrs {
			pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: addr})
		}
		s.update(pod)
	}
}

// A pod whose status shows an address that no pod can have stops nothing: the sets get
// their other elements, new pods pass the guard, the node reaches itself and is reached.
func TestImpossibleAddressesStopNothing(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.guardNode()
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		s.apply(`{metadata: {name: odd}, spec: {podSelector: {matchLabels: {odd: "yes"}}, policyTypes: [Ingress, Egress]}}`)
		odd := map[string]string{"role": "frontend", "odd": "yes"}
		s.showOdd("elsewhere", odd)
		s.showOdd(thisNode, odd)
		s.label("busybox", map[string]string{"role": "frontend"}) // in one batch with them
		fresh := s.node.AddPod(t, "10.244.1.40", "fd00:10:244:1::40")
		s.model.StartSandbox(podstart.Sandbox{ID: "1", UID: "u", Namespace: "default", Name: "fresh", Addrs: fresh.Addrs})
		s.sync()

		s.requirePings(true, s.hosts["busybox"], s.hosts["test-np"])
		s.requirePings(false, s.hosts["neighbour"], s.hosts["test-np"])
		s.requirePings(true, s.hosts["neighbour"], fresh)
		s.requirePings(true, fresh, s.hosts["busybox"])
		for _, addr := range s.node.Addrs {
			require.True(t, s.node.Ping(addr, answerWithin), "the node to its own address %s", addr)
			require.True(t, s.hosts["neighbour"].Ping(addr, answerWithin), "a pod to its node at %s", addr)
		}
		require.Empty(t, s.enforcer.refusals)
		sets := s.run("ipset", "save")
		require.NotContains(t, sets, "gress 10.244.1.1\n", "the node isn't isolated")
		require.NotContains(t, sets, "gress fd00:10:244:1::1\n")

		told := s.model.OddPods()
		require.Len(t, told, len(impossible), "those of this node")
		shows := slices.Collect(maps.Values(told))
		require.Contains(t, shows, node.OddPod{Shows: "0.0.0.0 (unspecified), :: (unspecified)"})
		require.Contains(t, shows, node.OddPod{Shows: "10.244.1.1 (the node's own), fd00:10:244:1::1 (the node's own)"})
	})
}

// A pod whose status shows the address of a Service takes nothing from the Service: a
// packet to it has the address of a pod when a policy is asked. This holds on the node of
// that pod and on others.
func TestAServicesAddressInAStatusStopsNothing(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.apply(`{metadata: {name: odd}, spec: {podSelector: {matchLabels: {odd: "yes"}}, policyTypes: [Ingress, Egress]}}`)
		services := []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:96::10")}
		programs := []string{string(backend), strings.Replace(string(backend), "iptables", "ip6tables", 1)}
		pod := policytest.PodObject("odd", thisNode, services[0].String(), services[1].String())
		pod.Labels = map[string]string{"odd": "yes"}
		s.update(pod)
		s.sync()
		require.Contains(t, s.run("ipset", "save"), "moat-4-ingress 10.96.0.10\n")
		target := s.hosts["neighbour"]
		for i, service := range services {
			s.run(programs[i], "-w", "-t", "nat", "-A", "PREROUTING", "-d", service.String(), "-p", "tcp", "--dport", "80", "-j", "DNAT", "--to-destination", target.Addrs[i].String())
			require.True(t, s.hosts["busybox"].TCP(service, 80, answerWithin), "%s\n%s", service, s.dump())
			require.True(t, s.hosts["test-np"].TCP(service, 80, answerWithin), "%s\n%s", service, s.dump())
		}
	})
}
