package judge

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// allowance is one rule of a policy, of either direction.
type allowance struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func allowances(spec *networkingv1.NetworkPolicySpec, direction networkingv1.PolicyType) []allowance {
	var all []allowance
	if direction == networkingv1.PolicyTypeIngress {
		for _, rule := range spec.Ingress {
			all = append(all, allowance{peers: rule.From, ports: rule.Ports})
		}
		return all
	}
	for _, rule := range spec.Egress {
		all = append(all, allowance{peers: rule.To, ports: rule.Ports})
	}
	return all
}

// widens says whether other lets through, in a direction that ours closes, what
// ours doesn't. It compares rule with rule: other widens unless one rule of ours
// contains each of its rules. So it may say yes where several rules of ours
// together allow the same, and where selectors that differ select the same pods;
// it never says no where other allows more.
func widens(ours, other *networkingv1.NetworkPolicySpec) bool {
	for _, direction := range ours.PolicyTypes {
		if !slices.Contains(other.PolicyTypes, direction) {
			continue
		}
		own := allowances(ours, direction)
		for _, rule := range allowances(other, direction) {
			if !slices.ContainsFunc(own, func(a allowance) bool { return a.contains(rule) }) {
				return true
			}
		}
	}
	return false
}

func (a allowance) contains(b allowance) bool {
	return containsAll(a.peers, b.peers, peerContains) && containsAll(a.ports, b.ports, portContains)
}

// containsAll says whether each of b lies within one of a. No items is everything.
func containsAll[T any](a, b []T, contains func(a, b T) bool) bool {
	if len(a) == 0 {
		return true
	}
	if len(b) == 0 {
		return false
	}
	return !slices.ContainsFunc(b, func(item T) bool {
		return !slices.ContainsFunc(a, func(outer T) bool { return contains(outer, item) })
	})
}

func peerContains(a, b networkingv1.NetworkPolicyPeer) bool {
	switch {
	case a.IPBlock != nil || b.IPBlock != nil:
		return a.IPBlock != nil && b.IPBlock != nil && blockContains(a.IPBlock, b.IPBlock)
	case a.NamespaceSelector == nil && b.NamespaceSelector != nil:
		return false
	}
	sameNamespaces := equality.Semantic.DeepEqual(a.NamespaceSelector, b.NamespaceSelector) || selectsAll(a.NamespaceSelector)
	return sameNamespaces && (a.PodSelector == nil || selectsAll(a.PodSelector) || equality.Semantic.DeepEqual(a.PodSelector, b.PodSelector))
}

func selectsAll(selector *metav1.LabelSelector) bool {
	return selector != nil && len(selector.MatchLabels) == 0 && len(selector.MatchExpressions) == 0
}

// blockContains says whether all of b lies in a, and each exception of a that
// reaches into b is one of b's too. A range that can't be read contains nothing.
func blockContains(a, b *networkingv1.IPBlock) bool {
	inner, ok := readable(b.CIDR)
	if !ok || !rangeContains(a.CIDR, inner) {
		return false
	}
	for _, except := range a.Except {
		out, ok := readable(except)
		excepted := slices.ContainsFunc(b.Except, func(e string) bool { return rangeContains(e, out) })
		if !ok || out.Overlaps(inner) && !excepted {
			return false
		}
	}
	return true
}

func readable(text string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	return prefix.Masked(), err == nil
}

func rangeContains(text string, inner netip.Prefix) bool {
	outer, ok := readable(text)
	return ok && outer.Bits() <= inner.Bits() && outer.Overlaps(inner)
}

func portContains(a, b networkingv1.NetworkPolicyPort) bool {
	switch {
	case protocolOf(a) != protocolOf(b):
		return false
	case a.Port == nil:
		return true
	case b.Port == nil:
		return false
	case a.Port.Type == intstr.String || b.Port.Type == intstr.String:
		return *a.Port == *b.Port
	}
	return a.Port.IntVal <= b.Port.IntVal && lastPort(b) <= lastPort(a)
}

func protocolOf(port networkingv1.NetworkPolicyPort) corev1.Protocol {
	if port.Protocol == nil {
		return corev1.ProtocolTCP
	}
	return *port.Protocol
}

func lastPort(port networkingv1.NetworkPolicyPort) int32 {
	if port.EndPort == nil {
		return port.Port.IntVal
	}
	return *port.EndPort
}
