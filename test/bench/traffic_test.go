package bench

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/bench/results"
	"github.com/moat-dev/moat/test/cluster"
)

// Traffic is measured on nodes beside each other, in turn, all with the rules of Flannel
// and kube-proxy: of each backend two without Moat, with whose mean the others are
// compared, and whose own ratio shows the noise; one with a rule in Moat's place, which
// shows what the least of filters costs; and one for each number of isolated pods. Their
// agents have written their rules and stopped: what is compared is the rules.

// isolatedCounts are the numbers of isolated pods of a node; 0 is without Moat. The two
// without it come first.
var isolatedCounts = []int{0, 0, results.RuleAlone, 1, 100, 250}

const (
	// serverHost is the last number of the pod that is measured. Of all that share
	// its leaf in the tree of addresses it is compared last.
	serverHost = 250
	firstHost  = 2

	// Rounds of one kind for each of new flows: a few per cent matter, and single rounds
	// differ by more.
	connectionRounds  = 14
	oneStreamRounds   = 8
	manyStreamsRounds = 5

	clientsNamespace = "clients"
	sharedNamespace  = "iso"
)

// lane is a way from a client through a node to a pod.
type lane struct {
	backend  iptables.Backend
	isolated int
	node     *cluster.Node
	client   *nodetest.Host
	server   *nodetest.Host
}

func (l *lane) String() string { return fmt.Sprintf("%s, %d isolated pods", l.backend, l.isolated) }

// measureTraffic goes round all lanes, some rounds for each kind of traffic.
func (o *options) measureTraffic(t *testing.T) []results.Traffic {
	t.Helper()
	var lanes []*lane
	during("traffic: preparing the nodes", nil, func() { lanes = newLanes(t) })
	var all []results.Traffic
	for _, kind := range []struct {
		name    string
		rounds  int
		measure func(testing.TB, *lane) float64
	}{
		{results.NewConnections, connectionRounds * o.rounds, connections},
		{results.NewFlows, o.rounds, flows},
		{results.OneStream, oneStreamRounds * o.rounds, func(t testing.TB, l *lane) float64 { return throughput(t, l, 1) }},
		{results.ManyStreams, manyStreamsRounds * o.rounds, func(t testing.TB, l *lane) float64 { return throughput(t, l, manyStreams) }},
	} {
		all = append(all, measureKind(t, kind.name, kind.rounds, lanes, kind.measure)...)
	}
	return all
}

func measureKind(t testing.TB, kind string, rounds int, lanes []*lane, measure func(testing.TB, *lane) float64) []results.Traffic {
	t.Helper()
	measured := make([][]float64, len(lanes))
	detail := func() string { return fmt.Sprintf("%d of %d rounds", len(measured[len(lanes)-1]), rounds) }
	during("traffic: measuring "+kind, detail, func() {
		for round := range rounds {
			for at := range lanes {
				i := (at + round) % len(lanes) // nobody is always the first
				l := lanes[i]
				l.forget(t)
				measured[i] = append(measured[i], measure(t, l))
			}
		}
	})
	var all []results.Traffic
	add := func(i int, without []float64) {
		all = append(all, results.NewTraffic(kind, string(lanes[i].backend), lanes[i].isolated, measured[i], without))
	}
	for first := 0; first < len(lanes); first += len(isolatedCounts) { // of each backend
		add(first+1, measured[first])
		without := mean(measured[first], measured[first+1])
		for i := first + 2; i < first+len(isolatedCounts); i++ {
			add(i, without)
		}
	}
	return all
}

// mean returns the mean of two measurements of each round.
func mean(a, b []float64) []float64 {
	means := make([]float64, len(a))
	for i := range a {
		means[i] = (a[i] + b[i]) / 2
	}
	return means
}

// newLanes makes all nodes and lets their agents write the rules.
func newLanes(t testing.TB) []*lane {
	t.Helper()
	backends := []iptables.Backend{iptables.NFT, iptables.Legacy}
	c := cluster.New(t, cluster.Options{Nodes: len(backends) * len(isolatedCounts), Primary: ruleset.IPv4, APIServerFlags: unlimited})
	c.Namespace(t, clientsNamespace, nil)
	api := newClientset(t, c.Config(t))
	var lanes []*lane
	for i, node := range c.Nodes {
		l := &lane{backend: backends[i/len(isolatedCounts)], isolated: isolatedCounts[i%len(isolatedCounts)], node: node}
		number := i + 1
		l.client = node.AddRemote(t, fmt.Sprintf("10.9.%d.1", number))
		l.server = node.AddPod(t, fmt.Sprintf("10.244.%d.%d", number, serverHost))
		l.addNetworkRules(t)
		switch {
		case l.isolated > 0:
			l.isolate(t, c, api, number)
		case l.isolated == results.RuleAlone:
			l.node.Run(t, string(l.backend), "-t", "mangle", "-A", "FORWARD", "-m", "conntrack", "--ctstate", "RELATED,ESTABLISHED", "-j", "ACCEPT")
		}
		serve(t, l.server)
		require.True(t, l.client.TCP(l.server.Addrs[0], connectPort, 2*time.Second), "%s", l)
		l.server.ServeTCP(t, closedPort)
		require.Equal(t, l.isolated <= 0, l.client.TCP(l.server.Addrs[0], closedPort, time.Second/2), "%s: a port that no rule allows", l)
		lanes = append(lanes, l)
	}
	return lanes
}

// addNetworkRules gives the node what it has without Moat: the rules of Flannel, and
// those of the real kube-proxy for the one Service of a new cluster.
func (l *lane) addNetworkRules(t testing.TB) {
	t.Helper()
	l.node.AddFlannelRules(t, l.backend)
	proxy := l.node.StartProxy(t, cluster.Proxy{Mode: cluster.ProxyIPTables, Backend: l.backend})
	const service = "default/kubernetes:https"
	require.Eventually(t, func() bool { return strings.Contains(l.node.Run(t, string(l.backend)+"-save", "-t", "nat"), service) },
		time.Minute, 100*time.Millisecond, "kube-proxy of %s; its log is %s", l.node.Name, proxy.Log)
	proxy.Stop(t)
}

// isolate isolates pods of the node, of which one is real, each by a policy of its own.
func (l *lane) isolate(t testing.TB, c *cluster.Cluster, api kubernetes.Interface, number int) {
	t.Helper()
	namespace := fmt.Sprintf("%s-%d", sharedNamespace, number)
	c.Namespace(t, namespace, nil)
	host := firstHost
	for i := range l.isolated {
		addr := l.server.Addrs[0]
		if i > 0 {
			if host == serverHost { // is taken
				host++
			}
			bytes := addr.As4()
			bytes[3] = byte(host)
			addr, host = netip.AddrFrom4(bytes), host+1
		}
		pod := newPod(namespace, fmt.Sprintf("pod-%d", i), isoLabels(i))
		place(pod, l.node.Name, addr)
		require.NoError(t, runPod(t.Context(), api, pod))
		_, err := api.NetworkingV1().NetworkPolicies(namespace).Create(t.Context(), isoPolicy(namespace, i), metav1.CreateOptions{})
		require.NoError(t, err)
	}
	client := newPod(clientsNamespace, fmt.Sprintf("client-%d", number), map[string]string{"role": "client"})
	place(client, "elsewhere", l.client.Addrs[0])
	require.NoError(t, runPod(t.Context(), api, client))

	l.node.StartAgent(t, l.backend)
	l.node.AwaitAgent(t)
	l.node.Agent.Stop(t)
}

func isoLabels(i int) map[string]string { return map[string]string{"iso": fmt.Sprintf("iso-%d", i)} }

// isoPolicy lets three groups of peers reach a pod, of which the clients are the last.
func isoPolicy(namespace string, i int) *networkingv1.NetworkPolicy {
	policy := newPolicy(0, fmt.Sprintf("iso-%d", i), metav1.LabelSelector{MatchLabels: isoLabels(i)}, nil, nil)
	policy.Namespace = namespace
	everywhere := &metav1.LabelSelector{}
	policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{
		{From: []networkingv1.NetworkPolicyPeer{{NamespaceSelector: everywhere, PodSelector: &metav1.LabelSelector{MatchLabels: isoLabels(i + 1)}}}},
		{From: []networkingv1.NetworkPolicyPeer{block("172.16.0.0/16", fmt.Sprintf("172.16.%d.0/24", i))}},
		{
			From:  []networkingv1.NetworkPolicyPeer{{NamespaceSelector: everywhere, PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "client"}}}},
			Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, connectPort), port(corev1.ProtocolTCP, streamPort), port(corev1.ProtocolUDP, udpPort)},
		},
	}
	policy.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{
		{To: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: isoLabels(i + 2)}}}},
		{To: []networkingv1.NetworkPolicyPeer{block("0.0.0.0/0", "10.0.0.0/8", fmt.Sprintf("192.168.%d.0/24", i))}},
	}
	return policy
}
