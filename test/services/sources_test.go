package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/test/cluster"
)

// Servers: of each kind one runs on the translator and one on masqueradeAll. The
// other kinds are named after the one source that their policy allows.
const (
	open       = "open"     // no policy
	closed     = "closed"   // nothing is allowed
	bySelector = "selector" // pods with the clients' label are allowed
)

// sources are what a policy might see.
func (s *scene) sources() map[string][]netip.Addr {
	sources := map[string][]netip.Addr{"world": s.World.Addrs}
	for i, n := range s.Nodes {
		sources[fmt.Sprintf("node-%d", i+1)] = n.Underlay
		sources[fmt.Sprintf("bridge-%d", i+1)] = n.Addrs
		sources[fmt.Sprintf("client-%d", i+1)] = s.pods[fmt.Sprintf("client-%d", i+1)].Addrs
	}
	return sources
}

// serverName is the name of the server of a kind on a node, and of its Services
// together with their external traffic policy.
func serverName(kind string, node int) string { return fmt.Sprintf("%s-on-%d", kind, node+1) }

func serviceName(kind string, node int, external corev1.ServiceExternalTrafficPolicy) string {
	return serverName(kind, node) + "-" + strings.ToLower(string(external))
}

// addSources adds the clients and servers of the rows, and returns their policies.
//
// Beside each client there are two that are isolated: target may send to servers
// and their ports alone, sent to the addresses and ports of Services alone.
func (s *scene) addSources(t *testing.T) []*networkingv1.NetworkPolicy {
	t.Helper()
	for node := range s.Nodes {
		for _, app := range []string{"client", "target", "sent"} {
			s.addPod(t, node, fmt.Sprintf("%s-%d", app, node+1), app)
		}
	}
	var policies []*networkingv1.NetworkPolicy
	for _, kind := range s.kinds() {
		for _, node := range []int{translator, masqueradeAll} {
			pod := s.addPod(t, node, serverName(kind, node), "sees-"+kind)
			for _, external := range []corev1.ServiceExternalTrafficPolicy{extCluster, extLocal} {
				s.addService(t, serviceName(kind, node, external), external, backend(pod))
			}
		}
		if kind == open {
			continue
		}
		ingress := policy("sees-"+kind, networkingv1.PolicyTypeIngress)
		if kind == bySelector {
			ingress.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{selects("client")}}}
		} else if kind != closed {
			ingress.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: addresses(s.sources()[kind]...)}}
		}
		policies = append(policies, ingress)
	}
	return append(policies, s.egressPolicies()...)
}

// kinds are those of servers, sorted.
func (s *scene) kinds() []string {
	kinds := []string{open, closed, bySelector}
	for name := range s.sources() {
		kinds = append(kinds, name)
	}
	slices.Sort(kinds)
	return kinds
}

func (s *scene) egressPolicies() []*networkingv1.NetworkPolicy {
	target := policy("target", networkingv1.PolicyTypeEgress)
	target.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: []networkingv1.NetworkPolicyPeer{selects("sees-open")}, Ports: portsOf(targetTCP, targetUDP)}}

	sent := policy("sent", networkingv1.PolicyTypeEgress)
	ports := portsOf(portTCP, portUDP)
	for _, node := range []int{translator, masqueradeAll} {
		for _, external := range []corev1.ServiceExternalTrafficPolicy{extCluster, extLocal} {
			made := s.services[serviceName(open, node, external)]
			ports = append(ports, portsOf(int32(made.tcp), int32(made.udp))...)
		}
	}
	to := append(blocks(slices.Concat(clusterIPs, balancers)...), addresses(s.Nodes[translator].Underlay...)...)
	sent.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: to, Ports: ports}}
	return []*networkingv1.NetworkPolicy{target, sent}
}

// networks are the protocols, in Go's words.
var networks = []string{"tcp", "udp"}

// probe is one connection.
type probe struct {
	row     row
	node    int    // of the endpoint
	kind    string // of the server
	from    string
	family  int
	network string
}

// all returns the probes of an observation: to the servers of every kind from the
// row's client, and to the open one from those whose egress is isolated.
func (s *scene) all(of probe) []probe {
	var probes []probe
	for _, kind := range s.kinds() {
		p := of
		p.kind, p.from = kind, of.row.from
		probes = append(probes, p)
	}
	if of.row.egress != "" {
		for _, app := range []string{"target", "sent"} {
			p := of
			p.kind, p.from = open, strings.Replace(of.row.from, "client", app, 1)
			probes = append(probes, p)
		}
	}
	return probes
}

func (p probe) expected() outcome {
	if p.node == p.row.via {
		return p.row.same
	}
	return p.row.other
}

// passes is whether the probe should be answered, by what the rows say.
func (p probe) passes() bool {
	seen := p.expected().policy
	switch {
	case seen == neverSent:
		return false
	case strings.HasPrefix(p.from, "target"):
		return p.row.egress == asEndpoint
	case strings.HasPrefix(p.from, "sent"):
		return p.row.egress == asSent
	case seen == anyone, p.kind == open:
		return true
	case p.kind == bySelector:
		return strings.HasPrefix(seen, "client")
	default:
		return p.kind == seen
	}
}

// host is who sends.
func (s *scene) host(name string) *nodetest.Host {
	if name == "world" {
		return s.World
	}
	for _, n := range s.Nodes {
		if n.Name == name {
			return n.Host
		}
	}
	return s.pods[name].Host
}

// ask makes the connection of a probe.
func (s *scene) ask(p probe, within time.Duration) (nodetest.Seen, error) {
	made := s.services[serviceName(p.kind, p.node, p.row.external)]
	to, port := made.at(p.row.to, p.family, p.network)
	switch p.row.to {
	case toNodePort:
		to = s.Nodes[p.row.via].Underlay[p.family]
	case toPod:
		to = s.pods[serverName(p.kind, p.node)].Addrs[p.family]
	}
	return s.host(p.from).Ask(p.network, to, port, within)
}

// at returns the address and the port of a Service. A node's port is at the
// address of any node, and a pod's at the pod's.
func (made *service) at(kind destination, family int, network string) (netip.Addr, uint16) {
	ports := map[destination][2]uint16{
		toClusterIP: {portTCP, portUDP}, toBalancer: {portTCP, portUDP},
		toNodePort: {made.tcp, made.udp}, toPod: {targetTCP, targetUDP},
	}[kind]
	port := ports[0]
	if network == "udp" {
		port = ports[1]
	}
	if kind == toBalancer {
		return made.balancers[family], port
	}
	return made.clusterIPs[family], port
}

// seen is what was measured of a row.
type seen struct {
	outcome
	bySelector bool
	egress     string
}

// observation is what was measured of a row with the endpoint on one node.
type observation struct {
	probe
	seen
}

func (o observation) place() string {
	if o.node == o.row.via {
		return "same node"
	}
	return "another node"
}

// rowsAtOnce is how many rows are measured at the same time, so that a small
// machine answers in time.
const rowsAtOnce = 12

// measure measures every row, with the endpoint on either node, in both families
// and with both protocols. Probes that should be answered are waited for the
// longer.
func (s *scene) measure(answered func(probe) bool) []observation {
	var observations []observation
	for _, r := range rows {
		for _, node := range []int{r.via, translator + masqueradeAll - r.via} {
			for family := range cluster.Families {
				for _, network := range networks {
					observations = append(observations, observation{probe: probe{row: r, node: node, family: family, network: network}})
				}
			}
		}
	}
	slots := make(chan struct{}, rowsAtOnce)
	var done sync.WaitGroup
	for i := range observations {
		done.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			observations[i].seen = s.observe(observations[i].probe, answered)
		})
	}
	done.Wait()
	return observations
}

// observe sends the probes of one observation and says what they show.
func (s *scene) observe(of probe, answered func(probe) bool) seen {
	var mu sync.Mutex
	var done sync.WaitGroup
	passed, servers := map[string]bool{}, map[string]bool{}
	for _, p := range s.all(of) {
		done.Go(func() {
			within := silence
			if answered(p) {
				within = patience
			}
			answer, err := s.ask(p, within)
			if err != nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if p.from == of.row.from {
				passed[p.kind] = true
				servers[s.nameOf(answer.Client)] = true
			} else {
				passed[strings.TrimRight(p.from, "-123")] = true
			}
		})
	}
	done.Wait()
	return s.conclude(passed, servers)
}

func (s *scene) conclude(passed, servers map[string]bool) seen {
	result := seen{bySelector: passed[bySelector]}
	switch {
	case passed["target"] && passed["sent"]:
		result.egress = asBoth
	case passed["target"]:
		result.egress = asEndpoint
	case passed["sent"]:
		result.egress = asSent
	}
	result.server = join(servers)
	known := map[string]bool{}
	for name := range s.sources() {
		if passed[name] {
			known[name] = true
		}
	}
	switch {
	case passed[closed] && len(known) == len(s.sources()):
		result.policy = anyone
	case len(passed) == 0:
		result.policy = neverSent
	default:
		result.policy = join(known)
	}
	return result
}

// nameOf names an address.
func (s *scene) nameOf(addr netip.Addr) string {
	for name, addrs := range s.sources() {
		if slices.Contains(addrs, addr) {
			return name
		}
	}
	return addr.String()
}

func join(names map[string]bool) string {
	var all []string
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, "+")
}
