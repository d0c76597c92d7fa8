package appisolation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// compile translates an AppIsolation to the spec of its NetworkPolicy. It is
// pure: the same spec gives the same policy, in the order of the user's rules,
// and the two share no memory. The selector is not nil: the CRD requires it.
// mode is none of its business: a disabled AppIsolation has no policy.
func compile(spec *v1alpha1.AppIsolationSpec) networkingv1.NetworkPolicySpec {
	spec = spec.DeepCopy()
	policy := networkingv1.NetworkPolicySpec{PodSelector: *spec.Selector.ToMeta()}
	for _, direction := range spec.Directions {
		policy.PolicyTypes = append(policy.PolicyTypes, networkingv1.PolicyType(direction))
	}
	for _, rule := range spec.Ingress {
		policy.Ingress = append(policy.Ingress, networkingv1.NetworkPolicyIngressRule{
			From:  compilePeers(rule.From),
			Ports: compilePorts(rule.Ports),
		})
	}
	for _, rule := range spec.Egress {
		policy.Egress = append(policy.Egress, networkingv1.NetworkPolicyEgressRule{
			To:    compilePeers(rule.To),
			Ports: compilePorts(rule.Ports),
		})
	}
	return policy
}

// compilePeers returns nil, which is NetworkPolicy's "no restriction", only
// where a peer says Anywhere. An AppIsolation rule has at least one peer, so
// that nil never stands for a list that someone emptied.
func compilePeers(peers []v1alpha1.Peer) []networkingv1.NetworkPolicyPeer {
	var compiled []networkingv1.NetworkPolicyPeer
	for _, peer := range peers {
		if peer.Entity == v1alpha1.EntityAnywhere {
			return nil
		}
		compiled = append(compiled, compilePeer(peer))
	}
	return compiled
}

func compilePeer(peer v1alpha1.Peer) networkingv1.NetworkPolicyPeer {
	switch {
	case peer.App != nil:
		return networkingv1.NetworkPolicyPeer{
			PodSelector:       peer.App.ToMeta(),
			NamespaceSelector: compileNamespaces(peer.App.Namespaces),
		}
	case peer.CIDR != nil:
		return networkingv1.NetworkPolicyPeer{
			IPBlock: &networkingv1.IPBlock{CIDR: peer.CIDR.CIDR, Except: peer.CIDR.Except},
		}
	case peer.Entity == v1alpha1.EntitySameNamespace:
		return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}}
	case peer.Entity == v1alpha1.EntityAllNamespaces:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}}
	}
	// An entity that this version doesn't know. The API server refuses an empty
	// peer, so that the AppIsolation becomes Invalid instead of wider.
	return networkingv1.NetworkPolicyPeer{}
}

// compileNamespaces returns nil, NetworkPolicy's "own namespace", for nil.
func compileNamespaces(namespaces *v1alpha1.NamespacePeer) *metav1.LabelSelector {
	switch {
	case namespaces == nil:
		return nil
	case namespaces.Selector != nil:
		return namespaces.Selector.ToMeta()
	}
	return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
		Key:      corev1.LabelMetadataName,
		Operator: metav1.LabelSelectorOpIn,
		Values:   slices.Sorted(slices.Values(namespaces.Names)),
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
