package services

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/test/cluster"
)

const (
	ingress = networkingv1.PolicyTypeIngress
	egress  = networkingv1.PolicyTypeEgress
)

// tries is how often a Service with up to three endpoints is tried so that each of
// them is met: one of three is missed once in three million times.
const tries = 40

// met counts what became of a number of connections.
type met struct {
	servers map[netip.Addr]int // that answered
	clients map[netip.Addr]int // that they saw
	failed  int
}

// try makes a number of connections of TCP at once.
func try(host *nodetest.Host, to netip.Addr, port uint16, within time.Duration) met {
	result := met{servers: map[netip.Addr]int{}, clients: map[netip.Addr]int{}}
	var mu sync.Mutex
	var done sync.WaitGroup
	for range tries {
		done.Go(func() {
			answer, err := host.Ask("tcp", to, port, within)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				result.failed++
				return
			}
			result.servers[answer.Server]++
			result.clients[answer.Client]++
		})
	}
	done.Wait()
	return result
}

// testSelector asks servers that allow the clients' label, from a pod with it and
// from one without.
func (s *scene) testSelector(t *testing.T) {
	type asked struct {
		client string
		seen   nodetest.Seen
		err    error
	}
	for family := range cluster.Families {
		var answers []*asked
		var done sync.WaitGroup
		for client, within := range map[string]time.Duration{"client-1": patience, "sent-2": silence, "alone-1": silence} {
			for _, node := range []int{translator, masqueradeAll} {
				for _, network := range networks {
					a := &asked{client: client}
					answers = append(answers, a)
					to, port := s.services[serviceName(bySelector, node, extCluster)].at(toClusterIP, family, network)
					done.Go(func() { a.seen, a.err = s.pods[client].Ask(network, to, port, within) })
				}
			}
		}
		done.Wait()
		for _, a := range answers {
			if a.client != "client-1" {
				require.Error(t, a.err, "%s is not a client", a.client)
				continue
			}
			require.NoError(t, a.err)
			require.Equal(t, s.pods[a.client].Addrs[family], a.seen.Client)
		}
	}
}

// caller is a pod on the translator whose egress is isolated.
type caller struct {
	rule    networkingv1.NetworkPolicyEgressRule
	reaches []string // of the two servers
}

// callers are named by what their rule allows.
func callers() map[string]caller {
	type rule = networkingv1.NetworkPolicyEgressRule
	to := []networkingv1.NetworkPolicyPeer{selects("web")}
	tcp := func(ports ...int32) (list []networkingv1.NetworkPolicyPort) {
		for _, port := range ports {
			list = append(list, numbered(corev1.ProtocolTCP, port))
		}
		return list
	}
	return map[string]caller{
		"by-name":         {rule{To: to, Ports: []networkingv1.NetworkPolicyPort{named("web")}}, []string{"web-1", "web-2"}},
		"by-both-numbers": {rule{To: to, Ports: tcp(8081, 8082)}, []string{"web-1", "web-2"}},
		"by-one-number":   {rule{To: to, Ports: tcp(8081)}, []string{"web-1"}},
		"by-peers":        {rule{To: to}, []string{"web-1", "web-2"}},
		"by-pod-block":    {rule{To: blocks(podCIDRs...), Ports: tcp(8082)}, []string{"web-2"}},
		"by-service-port": {rule{To: to, Ports: tcp(portTCP)}, nil},
		"by-service-ip":   {rule{To: blocks(clusterIPs...)}, nil},
	}
}

// addPorts adds a Service whose target port has a name that its two pods give to
// different numbers, and the callers. The pods' own policy names the port too.
func (s *scene) addPorts(t *testing.T) []*networkingv1.NetworkPolicy {
	t.Helper()
	var endpoints []endpoint
	for node, number := range []int32{8081, 8082} {
		pod := s.addPod(t, node, fmt.Sprintf("web-%d", node+1), "web", corev1.ContainerPort{Name: "web", ContainerPort: number})
		endpoints = append(endpoints, endpoint{addrs: pod.Addrs, node: pod.Node, tcp: number, udp: targetUDP})
	}
	s.addService(t, "web", extCluster, endpoints...)
	web := policy("web", ingress)
	web.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{named("web")}}}
	policies := []*networkingv1.NetworkPolicy{web}
	for name, caller := range callers() {
		s.addPod(t, translator, name, name)
		isolated := policy(name, egress)
		isolated.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{caller.rule}
		policies = append(policies, isolated)
	}
	return policies
}

func (s *scene) testPorts(t *testing.T) {
	for family := range cluster.Families {
		to, port := s.services["web"].at(toClusterIP, family, "tcp")
		results := map[string]*met{}
		var done sync.WaitGroup
		for name, caller := range callers() {
			result, within := &met{}, silence
			if len(caller.reaches) == 2 {
				within = patience
			}
			results[name] = result
			done.Go(func() { *result = try(s.pods[name].Host, to, port, within) })
		}
		done.Wait()
		for name, caller := range callers() {
			result := results[name]
			require.Len(t, result.servers, len(caller.reaches), "%s: %+v", name, result)
			for _, server := range caller.reaches {
				require.Contains(t, result.servers, s.pods[server].Addrs[family], "%s: %+v", name, result)
			}
			require.Equal(t, len(caller.reaches) == 2, result.failed == 0, "%s: %+v", name, result)
		}
	}
}

// addHairpins adds Services whose clients are their own endpoints, isolated in both
// directions: alone; lonely with others behind the same Service, which no rule
// allows; and friends, which allow each other.
func (s *scene) addHairpins(t *testing.T) []*networkingv1.NetworkPolicy {
	t.Helper()
	var policies []*networkingv1.NetworkPolicy
	for app, places := range map[string][]int{
		"alone": {translator}, "lonely": {translator, translator, masqueradeAll}, "friend": {translator, translator, masqueradeAll},
	} {
		var endpoints []endpoint
		for i, node := range places {
			endpoints = append(endpoints, backend(s.addPod(t, node, fmt.Sprintf("%s-%d", app, i+1), app)))
		}
		s.addService(t, app, extCluster, endpoints...)
		isolated := policy(app, ingress, egress)
		if app == "friend" {
			peers, ports := []networkingv1.NetworkPolicyPeer{selects(app)}, portsOf(targetTCP, targetUDP)
			isolated.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: ports}}
			isolated.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: peers, Ports: ports}}
		}
		policies = append(policies, isolated)
	}
	return policies
}

func (s *scene) testHairpin(t *testing.T) {
	for family := range cluster.Families {
		bridge := s.Nodes[translator].Addrs[family]
		alone, lonely, friend := s.pods["alone-1"], s.pods["lonely-1"], s.pods["friend-1"]
		for _, kind := range []destination{toClusterIP, toBalancer, toNodePort} {
			for _, network := range []string{"tcp", "udp"} {
				to, port := s.services["alone"].at(kind, family, network)
				if kind == toNodePort {
					to = s.Nodes[translator].Underlay[family]
				}
				answer, err := alone.Ask(network, to, port, patience)
				require.NoError(t, err, "%s %s", kind, network)
				require.Equal(t, bridge, answer.Client, "%s %s", kind, network)
			}
		}

		to, port := s.services["lonely"].at(toClusterIP, family, "tcp")
		result := try(lonely.Host, to, port, silence)
		require.Len(t, result.servers, 1)
		require.Contains(t, result.servers, lonely.Addrs[family])
		require.Positive(t, result.failed, "the others are endpoints too")

		to, port = s.services["friend"].at(toClusterIP, family, "tcp")
		result = try(friend.Host, to, port, patience)
		require.Len(t, result.servers, 3)
		require.Zero(t, result.failed)
		require.Len(t, result.clients, 2, "itself sees its node, the others see the pod")
		require.Equal(t, result.servers[friend.Addrs[family]], result.clients[bridge])
	}
}

// apiPort is where programs on nodes serve, as an API server does.
const apiPort = 6443

// addNodeEndpoints adds Services whose endpoints are programs on nodes: one on the
// client's node and one on another.
func (s *scene) addNodeEndpoints(t *testing.T) []*networkingv1.NetworkPolicy {
	t.Helper()
	var nodes []netip.Addr
	for _, place := range []int{translator, third} {
		n := s.Nodes[place]
		n.ServeTCP(t, apiPort)
		s.addService(t, "api-"+n.Name, extCluster, endpoint{addrs: n.Underlay, node: n, tcp: apiPort, udp: targetUDP})
		nodes = append(nodes, n.Underlay...)
	}
	s.addPod(t, translator, "by-node", "by-node")
	byNode := policy("by-node", egress)
	byNode.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{
		To: addresses(nodes...), Ports: []networkingv1.NetworkPolicyPort{numbered(corev1.ProtocolTCP, apiPort)},
	}}
	s.addPod(t, translator, "to-world", "to-world")
	toWorld := policy("to-world", egress)
	toWorld.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: addresses(s.World.Addrs...), Ports: portsOf(targetTCP, targetUDP)}}
	return []*networkingv1.NetworkPolicy{byNode, toWorld}
}

func (s *scene) testNodeEndpoints(t *testing.T) {
	for family := range cluster.Families {
		for place, source := range map[int]netip.Addr{
			translator: s.pods["by-node"].Addrs[family],
			third:      s.Nodes[translator].Underlay[family],
		} {
			to, port := s.services["api-"+s.Nodes[place].Name].at(toClusterIP, family, "tcp")
			answer, err := s.pods["by-node"].Ask("tcp", to, port, patience)
			require.NoError(t, err)
			require.Equal(t, source, answer.Client)
			require.True(t, s.pods["client-1"].TCP(to, port, patience))
			require.False(t, s.pods["by-service-ip"].TCP(to, port, silence), "the Service's address is not the destination")
		}
	}
}

func (s *scene) testOutside(t *testing.T) {
	for family, world := range s.World.Addrs {
		for network, port := range map[string]uint16{"tcp": targetTCP, "udp": targetUDP} {
			answer, err := s.pods["to-world"].Ask(network, world, port, patience)
			require.NoError(t, err)
			require.Equal(t, s.Nodes[translator].Underlay[family], answer.Client)
			_, err = s.pods["by-service-ip"].Ask(network, world, port, silence)
			require.Error(t, err)
		}
	}
}
