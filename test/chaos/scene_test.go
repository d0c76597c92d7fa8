package chaos

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/cluster"
)

// namespace is where all pods are.
const namespace = "chaos"

// role is the label that selectors go by.
const role = "role"

// Roles of pods. A server may be reached by friends and may send nothing but
// answers; a friend may send to servers and be reached by nobody; a prisoner may
// send nothing. The others are isolated by nothing.
const (
	server   = "server"
	friend   = "friend"
	stranger = "stranger"
	prisoner = "prisoner"
	open     = "open"
)

// Ports of every server and every open pod.
const (
	portFreshTCP = 80 // that it accepts connections on
	portTCP      = 81 // of the established connection
	portFreshUDP = 53
	portUDP      = 54 // of the established flow

	clientPort = 40000 // the other end of established ones: a port that clients use
)

// backends are those of the nodes, in their order: each fault meets both at once.
var backends = []iptables.Backend{iptables.NFT, iptables.Legacy}

// scene is a cluster of two nodes with probes between their pods.
type scene struct {
	*cluster.Cluster
	wire     *wire
	pods     map[string]*endpoint // by name: role and number of the node
	streams  []*stream            // those that run all the while
	answers  []*stream            // of those, what servers send in established connections
	runtimes []*containerRuntime  // of each node
	closers  []func()

	listeners map[netip.AddrPort]net.Listener
}

// newScene makes pods and streams, without agents and policies.
func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{
		Cluster: cluster.New(t, cluster.Options{Nodes: len(backends), Primary: ruleset.IPv4}),
		wire:    newWire(t), pods: map[string]*endpoint{}, listeners: map[netip.AddrPort]net.Listener{},
	}
	for _, n := range s.Nodes {
		quickToForget(t, n)
		s.runtimes = append(s.runtimes, newContainerRuntime(t))
	}
	s.Namespace(t, namespace, nil)
	for i := range s.Nodes {
		other := (i + 1) % len(s.Nodes)
		s.addPod(t, i, server, i)
		s.addPod(t, other, friend, i)
		s.addPod(t, other, stranger, i)
		s.addPod(t, i, prisoner, i)
		s.addPod(t, i, open, i)
	}
	for i := range s.Nodes {
		s.addStreams(t, i)
	}
	return s
}

// quickToForget lets a node's table of connections keep those that are over only for
// seconds, or fresh flows every millisecond would fill it. It is the node's own
// setting, not the machine's.
func quickToForget(t testing.TB, n *cluster.Node) {
	t.Helper()
	require.NoError(t, n.Do(func() error {
		return errors.Join(
			nodetest.SetSysctl("netfilter/nf_conntrack_udp_timeout", "5"),
			nodetest.SetSysctl("netfilter/nf_conntrack_tcp_timeout_close", "5"),
		)
	}))
}

// podObject is a pod of a role. The number is that of the node whose rules its
// streams are about.
func podObject(of, name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{role: of}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{
			Name: "main", Image: "none", Ports: []corev1.ContainerPort{{ContainerPort: portFreshTCP}},
		}}},
	}
}

func (s *scene) addPod(t *testing.T, node int, role string, about int) {
	t.Helper()
	name := fmt.Sprintf("%s-%d", role, about+1)
	object := podObject(role, name)
	pod := s.StartPod(t, s.Nodes[node], object, cluster.Start{
		Sandbox: func(addrs []netip.Addr) { s.runtimes[node].run(t, object, addrs) },
	})
	s.pods[name] = s.wire.attach(t, newEndpoint(t, pod.Host, name))
}

func (s *scene) pod(role string, about int) *endpoint {
	return s.pods[fmt.Sprintf("%s-%d", role, about+1)]
}

// addStreams starts what is probed about a node: everything in both families, spread
// over the kinds, so that there is one probe of each kind a millisecond.
func (s *scene) addStreams(t *testing.T, about int) {
	t.Helper()
	friend, stranger, server := s.pod(friend, about), s.pod(stranger, about), s.pod(server, about)
	s.fresh(allowed, "udp", ruleset.IPv4, friend, server)
	s.fresh(allowed, "tcp", ruleset.IPv6, friend, server)
	s.establishedUDP(t, allowed, ruleset.IPv6, friend, server)
	s.establishedTCP(t, allowed, ruleset.IPv4, friend, server)

	s.fresh(forbidden, "udp", ruleset.IPv6, stranger, server)
	s.fresh(forbidden, "tcp", ruleset.IPv4, stranger, server)
	s.establishedUDP(t, forbidden, ruleset.IPv4, stranger, server)
	s.establishedTCP(t, forbidden, ruleset.IPv6, stranger, server)

	// On the bridge of one node.
	s.fresh(forbidden, "udp", ruleset.IPv4, s.pod(prisoner, about), s.pod(open, about))
	s.fresh(forbidden, "tcp", ruleset.IPv6, s.pod(prisoner, about), s.pod(open, about))

	// Between pods of two nodes that nothing isolates.
	s.fresh(allowed, "udp", ruleset.IPv6, s.pod(open, about), stranger)
	s.fresh(allowed, "tcp", ruleset.IPv4, stranger, s.pod(open, about))
}

func (e *endpoint) addr(family ruleset.Family) netip.Addr {
	for _, addr := range e.Addrs {
		if family.Holds(addr) {
			return addr
		}
	}
	return netip.Addr{}
}

func (s *scene) established(v verdict, kind string, from, to *endpoint, f flow) *stream {
	st := s.wire.add(newStream(v, "established "+kind, from, to), f, false)
	s.streams = append(s.streams, st)
	return st
}

// freshFlow is the flow of a stream of fresh connections to a server's ports. Its
// source port is that of the first.
func freshFlow(protocol string, family ruleset.Family, from, to *endpoint) flow {
	f := flow{from: netip.AddrPortFrom(from.addr(family), firstSource), to: netip.AddrPortFrom(to.addr(family), portFreshUDP)}
	if protocol == "tcp" {
		f.to, f.flags = netip.AddrPortFrom(to.addr(family), portFreshTCP), tcpFlagSYN
	}
	return f
}

// fresh adds a stream of fresh connections that runs all the while.
func (s *scene) fresh(v verdict, protocol string, family ruleset.Family, from, to *endpoint) {
	s.streams = append(s.streams, s.probe(v, protocol, family, from, to))
}

// probe starts a stream of fresh connections.
func (s *scene) probe(v verdict, protocol string, family ruleset.Family, from, to *endpoint) *stream {
	st := newStream(v, "new "+strings.ToUpper(protocol), from, to)
	return s.wire.add(st, freshFlow(protocol, family, from, to), true)
}

func newStream(v verdict, kind string, from, to *endpoint) *stream {
	return &stream{name: fmt.Sprintf("%s %s, %s to %s", v, kind, from.name, to.name), verdict: v, from: from, to: to}
}

// establishedUDP sends both ways between two ports, beginning with the client.
func (s *scene) establishedUDP(t *testing.T, v verdict, family ruleset.Family, from, to *endpoint) {
	t.Helper()
	client, served := netip.AddrPortFrom(from.addr(family), clientPort), netip.AddrPortFrom(to.addr(family), portUDP)
	s.closers = append(s.closers, occupyUDP(t, from, client), occupyUDP(t, to, served))
	s.established(v, "UDP", from, to, flow{from: client, to: served})
	s.answers = append(s.answers, s.established(v, "UDP", to, from, flow{from: served, to: client}))
}

func (s *scene) establishedTCP(t *testing.T, v verdict, family ruleset.Family, from, to *endpoint) {
	t.Helper()
	client, served := netip.AddrPortFrom(from.addr(family), clientPort), netip.AddrPortFrom(to.addr(family), portTCP)
	c := s.connect(t, from, to, client, served)
	s.closers = append(s.closers, c.close)
	s.established(v, "TCP", from, to, flow{from: client, to: served, flags: tcpFlagACK, seq: c.clientNext, ack: c.serverNext})
	s.answers = append(s.answers, s.established(v, "TCP", to, from, flow{from: served, to: client, flags: tcpFlagACK, seq: c.serverNext, ack: c.clientNext}))
}

// policies are those that make the verdicts true.
func policies() []*networkingv1.NetworkPolicy {
	ingress, egress := networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress
	toFriends := policy(server, server, ingress, egress)
	toFriends.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peers(friend), Ports: serverPorts()}}
	toServers := policy(friend, friend, ingress, egress)
	toServers.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: peers(server)}}
	starters := policy(starter, starter, ingress, egress)
	starters.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peers(open)}}
	starters.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: peers(open)}}
	return []*networkingv1.NetworkPolicy{toFriends, toServers, policy(prisoner, prisoner, egress), starters}
}

// policy isolates the pods of a role.
func policy(name, of string, types ...networkingv1.PolicyType) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{role: of}}, PolicyTypes: types,
		},
	}
}

func peers(of string) []networkingv1.NetworkPolicyPeer {
	return []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{role: of}}}}
}

// serverPorts are those that a server serves, as two ranges.
func serverPorts() []networkingv1.NetworkPolicyPort {
	between := func(protocol corev1.Protocol, first int, last int32) networkingv1.NetworkPolicyPort {
		port := intstr.FromInt(first)
		return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port, EndPort: &last}
	}
	return []networkingv1.NetworkPolicyPort{
		between(corev1.ProtocolTCP, portFreshTCP, portTCP), between(corev1.ProtocolUDP, portFreshUDP, portUDP),
	}
}

// apply creates the policies and waits until they are enforced.
func (s *scene) apply(t *testing.T) {
	t.Helper()
	for _, p := range policies() {
		require.NoError(t, s.Client.Create(t.Context(), p))
		s.AwaitEnforced(t, client.ObjectKeyFromObject(p))
	}
}

func intPort(number int) intstr.IntOrString { return intstr.FromInt32(int32(number)) }
