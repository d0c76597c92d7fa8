package isolation

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// Compile translates an AppIsolation to the spec of its NetworkPolicy, and says
// which rule each comes from and what it names that w doesn't have. It is pure: the same AppIsolation in the same
// world gives the same policy, in the order of the user's rules, and they share no
// memory. The selector is not nil: the CRD requires it. mode is none of its
// business: a disabled AppIsolation has no policy.
//
// It fails closed. To NetworkPolicy, a rule without peers allows anyone; so a rule
// none of whose peers can be resolved is left out.
func Compile(app *v1alpha1.AppIsolation, w World) (networkingv1.NetworkPolicySpec, v1alpha1.Provenance, []Problem) {
	spec := app.Spec.DeepCopy()
	c := &compiler{namespace: app.Namespace, world: w}
	var from v1alpha1.Provenance
	policy := networkingv1.NetworkPolicySpec{PodSelector: *spec.Selector.ToMeta()}
	for _, direction := range spec.Directions {
		policy.PolicyTypes = append(policy.PolicyTypes, networkingv1.PolicyType(direction))
	}
	for _, rule := range spec.Ingress {
		c.field = "ingress rule " + rule.Name
		policy.Ingress = append(policy.Ingress, c.ingress(rule)...)
		from.Ingress = upTo(from.Ingress, len(policy.Ingress), rule.Name)
	}
	for _, rule := range spec.Egress {
		c.field = "egress rule " + rule.Name
		policy.Egress = append(policy.Egress, c.egress(rule)...)
		from.Egress = upTo(from.Egress, len(policy.Egress), rule.Name)
	}
	if allowsDNS(spec) {
		c.field = "implicit.dns"
		policy.Egress = append(policy.Egress, egressRules(c.dns())...)
		from.Egress = upTo(from.Egress, len(policy.Egress), v1alpha1.ProvenanceImplicitDNS)
	}
	return policy, from, c.problems
}

// upTo appends a name until there are n.
func upTo(names []string, n int, name string) []string {
	for len(names) < n {
		names = append(names, name)
	}
	return names
}

// allowsDNS reads an absent value as Allow, which is the CRD's default.
func allowsDNS(spec *v1alpha1.AppIsolationSpec) bool {
	return slices.Contains(spec.Directions, v1alpha1.DirectionEgress) && spec.Implicit.DNS != v1alpha1.ImplicitDeny
}

// Problem is a reference that can't be resolved. Reason is that of the condition
// ResolvedRefs.
type Problem struct {
	Reason, Message string
}

// compiler compiles one AppIsolation.
type compiler struct {
	namespace string
	world     World
	// field is what is being compiled, for the messages of problems.
	field    string
	problems []Problem
}

// unresolved notes a problem once. It returns no grants, so that no peer is allowed.
func (c *compiler) unresolved(reason, format string, args ...any) []grant {
	found := Problem{Reason: reason, Message: c.field + ": " + fmt.Sprintf(format, args...)}
	if !slices.Contains(c.problems, found) {
		c.problems = append(c.problems, found)
	}
	return nil
}

// grant is what one peer stands for: addresses, at ports where it has some of its
// own.
type grant struct {
	// anyone is true where there is no restriction. Otherwise a grant without
	// peers allows no peer.
	anyone bool
	peers  []networkingv1.NetworkPolicyPeer
	// ports are the peer's own, nil for every port. They count only as
	// destination, and where ownPorts is true: else the rule says the ports.
	ports    []networkingv1.NetworkPolicyPort
	ownPorts bool
}

func peersOnly(peers ...networkingv1.NetworkPolicyPeer) []grant { return []grant{{peers: peers}} }

// ingress returns at most one rule: a source has no ports.
func (c *compiler) ingress(rule v1alpha1.IngressRule) []networkingv1.NetworkPolicyIngressRule {
	var sources grant
	for _, peer := range rule.From {
		sources.add(c.sources(peer)...)
	}
	if sources.isEmpty() {
		return nil
	}
	return []networkingv1.NetworkPolicyIngressRule{{From: sources.from(), Ports: compilePorts(rule.Ports)}}
}

// egress returns a rule for the peers at the rule's ports, and one for each group
// of addresses that has ports of its own.
func (c *compiler) egress(rule v1alpha1.EgressRule) []networkingv1.NetworkPolicyEgressRule {
	var grants []grant
	shared := grant{ports: compilePorts(rule.Ports)}
	for _, peer := range rule.To {
		for _, g := range c.destinations(peer) {
			if g.ownPorts {
				grants = append(grants, g)
			} else {
				shared.add(g)
			}
		}
	}
	return egressRules(append([]grant{shared}, grants...))
}

func egressRules(grants []grant) []networkingv1.NetworkPolicyEgressRule {
	var rules []networkingv1.NetworkPolicyEgressRule
	for _, g := range grants {
		if !g.isEmpty() {
			rules = append(rules, networkingv1.NetworkPolicyEgressRule{To: g.from(), Ports: g.ports})
		}
	}
	return rules
}

// add lets g allow the peers of others too.
func (g *grant) add(others ...grant) {
	for _, other := range others {
		g.anyone = g.anyone || other.anyone
		g.peers = append(g.peers, other.peers...)
	}
}

// isEmpty says whether the grant allows no peer.
func (g *grant) isEmpty() bool { return !g.anyone && len(g.peers) == 0 }

// from returns the peers as NetworkPolicy writes them: none is anyone. It is not
// for an empty grant.
func (g *grant) from() []networkingv1.NetworkPolicyPeer {
	if g.anyone {
		return nil
	}
	return g.peers
}

// sources returns what a peer stands for as the origin of traffic.
func (c *compiler) sources(peer v1alpha1.Peer) []grant {
	if peer.Entity == v1alpha1.EntityKubeAPIServer {
		return append(c.destinations(peer), peersOnly(c.apiServerTunnels()...)...)
	}
	return c.destinations(peer)
}

// destinations returns what a peer stands for as the destination of traffic, and at which
// ports.
func (c *compiler) destinations(peer v1alpha1.Peer) []grant {
	switch {
	case peer.App != nil:
		return peersOnly(compileApp(peer.App))
	case peer.CIDR != nil:
		return peersOnly(compileCIDR(peer.CIDR))
	case peer.Service != nil:
		return c.service(peer.Service)
	}
	return c.entity(peer.Entity)
}

func compileApp(app *v1alpha1.AppPeer) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{
		PodSelector:       app.ToMeta(),
		NamespaceSelector: compileNamespaces(app.Namespaces),
	}
}

func compileCIDR(peer *v1alpha1.CIDRPeer) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{
		IPBlock: &networkingv1.IPBlock{CIDR: peer.CIDR, Except: slices.Clone(peer.Except)},
	}
}

// compileNamespaces returns nil, NetworkPolicy's "own namespace", for nil.
func compileNamespaces(namespaces *v1alpha1.NamespacePeer) *metav1.LabelSelector {
	switch {
	case namespaces == nil:
		return nil
	case namespaces.Selector != nil:
		return namespaces.Selector.ToMeta()
	}
	return namespacesNamed(namespaces.Names...)
}

func namespacesNamed(names ...string) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key:      corev1.LabelMetadataName,
		Operator: metav1.LabelSelectorOpIn,
		Values:   slices.Sorted(slices.Values(names)),
	}}}
}

func compilePorts(ports []v1alpha1.Port) []networkingv1.NetworkPolicyPort {
	var compiled []networkingv1.NetworkPolicyPort
	for _, port := range ports {
		protocol := corev1.ProtocolTCP
		if port.Protocol != "" {
			protocol = corev1.Protocol(port.Protocol)
		}
		compiled = append(compiled, networkingv1.NetworkPolicyPort{
			Protocol: &protocol,
			Port:     port.Port,
			EndPort:  port.EndPort,
		})
	}
	return compiled
}
