package services

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/cluster"
)

// Indices of the nodes.
const (
	translator    = iota // where traffic of Services arrives: A in docs/semantics.md
	masqueradeAll        // whose kube-proxy runs with masqueradeAll
	third                // which runs clients alone
	nodes
)

// podCIDRs and balancers are the prefixes of all pods and of load balancers'
// addresses, one per family.
var (
	podCIDRs   = strings.Split(cluster.PodCIDRs, ",")
	balancers  = []string{"192.0.2.0/24", "2001:db8::/64"}
	clusterIPs = []string{"10.96.0.0/16", "fd00:10:96::/112"}
)

// Ports of every Service and of the containers behind it: they differ, so that one
// can't be taken for the other.
const (
	portTCP, targetTCP = 80, 8080
	portUDP, targetUDP = 53, 5353
)

// How long a probe waits for an answer that should come, and for one that shouldn't.
const (
	patience = 10 * time.Second
	silence  = 700 * time.Millisecond
)

// label is what selectors go by: its value is the pod's name, or what several pods
// have in common.
const label = "app"

// scene is a cluster with Services.
type scene struct {
	*cluster.Cluster
	test     *testing.T // that all of it ends with
	setup    setup
	pods     map[string]*cluster.Pod // by name
	services map[string]*service     // by name
	proxies  []*cluster.Process      // by node
}

// newScene makes the network, with routes as they are where Services work: nodes
// have a default route, and what is outside reaches the addresses of Services, and
// pods, by way of the translator.
func newScene(t *testing.T, setup setup) *scene {
	t.Helper()
	s := &scene{
		Cluster: cluster.New(t, cluster.Options{Nodes: nodes, Primary: ruleset.IPv4}), test: t, setup: setup,
		pods: map[string]*cluster.Pod{}, services: map[string]*service{},
	}
	for _, n := range s.Nodes {
		for family, via := range s.World.Addrs {
			require.NoError(t, n.Do(func() error { return errors.Join(noRedirects(), addRoute([]string{"0.0.0.0/0", "::/0"}[family], via)) }))
		}
		n.AddFlannelRules(t, setup.backend)
	}
	for family, via := range s.Nodes[translator].Underlay {
		for _, to := range []string{clusterIPs[family], balancers[family], s.Nodes[masqueradeAll].PodCIDRs()[family].String()} {
			require.NoError(t, s.World.Do(func() error { return errors.Join(noRedirects(), addRoute(to, via)) }))
		}
	}
	s.World.ServeTCP(t, targetTCP)
	s.World.ServeUDP(t, targetUDP)
	return s
}

// noRedirects keeps hosts from learning a shorter way than the one that is tested.
func noRedirects() error {
	var errs []error
	for _, name := range []string{
		"ipv4/conf/all/send_redirects", "ipv4/conf/eth0/send_redirects", "ipv4/conf/all/accept_redirects",
		"ipv4/conf/eth0/accept_redirects", "ipv6/conf/eth0/accept_redirects",
	} {
		errs = append(errs, nodetest.SetSysctl(name, "0"))
	}
	return errors.Join(errs...)
}

func addRoute(to string, via netip.Addr) error {
	_, prefix, err := net.ParseCIDR(to)
	if err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{Dst: prefix, Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("routing %s via %s: %w", to, via, err)
	}
	return nil
}

// addPod adds a pod whose container ports are given by name, and of TCP; without
// any it serves the targets of Services.
func (s *scene) addPod(t *testing.T, node int, name, app string, ports ...corev1.ContainerPort) *cluster.Pod {
	t.Helper()
	if ports == nil {
		ports = []corev1.ContainerPort{{ContainerPort: targetTCP}, {ContainerPort: targetUDP, Protocol: corev1.ProtocolUDP}}
	}
	pod := s.AddPod(t, s.Nodes[node], &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{label: app}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "none", Ports: ports}}},
	})
	s.pods[name] = pod
	return pod
}

// hairpin lets pods get packets back from their own port of the bridge, as Flannel's
// configuration of the CNI plugin does.
func (s *scene) hairpin(t *testing.T) {
	t.Helper()
	for _, n := range s.Nodes {
		require.NoError(t, n.Do(func() error {
			links, err := netlink.LinkList()
			if err != nil {
				return err
			}
			for _, link := range links {
				if link.Type() == "veth" && link.Attrs().MasterIndex != 0 {
					err = errors.Join(err, netlink.LinkSetHairpin(link, true))
				}
			}
			return err
		}))
	}
}

// hint makes the chains by which a kubelet says which backend the node uses.
func (s *scene) hint(t *testing.T) {
	t.Helper()
	for _, n := range s.Nodes {
		for _, family := range cluster.Families {
			n.Run(t, s.setup.program(family), "-w", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
		}
	}
}

// apply creates policies and waits until they are enforced.
func (s *scene) apply(t *testing.T, policies ...*networkingv1.NetworkPolicy) {
	t.Helper()
	for _, policy := range policies {
		require.NoError(t, s.Client.Create(t.Context(), policy))
	}
	for _, policy := range policies {
		s.AwaitEnforced(t, client.ObjectKeyFromObject(policy))
	}
}

// forgetConnections empties the nodes' tables of connections: a datagram that has the
// ports of one before the policies would pass as its successor.
func (s *scene) forgetConnections(t *testing.T) {
	t.Helper()
	for _, n := range s.Nodes {
		require.NoError(t, n.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }))
	}
}

// policy isolates the pods of an app in the directions given, and allows what is
// added to it.
func policy(app string, types ...networkingv1.PolicyType) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: app},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{label: app}},
			PolicyTypes: types,
		},
	}
}

func selects(app string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{label: app}}}
}

// blocks are peers that are prefixes.
func blocks(cidrs ...string) (peers []networkingv1.NetworkPolicyPeer) {
	for _, cidr := range cidrs {
		peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}})
	}
	return peers
}

// addresses are peers that are single addresses.
func addresses(addrs ...netip.Addr) []networkingv1.NetworkPolicyPeer {
	var cidrs []string
	for _, addr := range addrs {
		cidrs = append(cidrs, netip.PrefixFrom(addr, addr.BitLen()).String())
	}
	return blocks(cidrs...)
}

// portsOf are ports of both protocols.
func portsOf(tcp, udp int32) []networkingv1.NetworkPolicyPort {
	return []networkingv1.NetworkPolicyPort{numbered(corev1.ProtocolTCP, tcp), numbered(corev1.ProtocolUDP, udp)}
}
