package policytest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// unreadableOneIn is how rare an unreadable part is, among the places where there can be one.
const unreadableOneIn = 40

func (d *Dice) unreadable() bool { return !d.stored && d.oneIn(unreadableOneIn) }

func (d *Dice) policy(i int) networkingv1.NetworkPolicy {
	np := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: pick(d, "a", "a", "b", "c"), Name: fmt.Sprintf("policy-%d", i)}}
	np.Spec.PodSelector = *d.selector()
	const in, out = networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress
	np.Spec.PolicyTypes = pick(d, []networkingv1.PolicyType{in, out}, []networkingv1.PolicyType{in}, []networkingv1.PolicyType{out}, nil)
	if d.unreadable() {
		np.Spec.PolicyTypes = append(np.Spec.PolicyTypes, "Sideways")
	}
	// There may be rules of a direction that the policy doesn't isolate, and an
	// empty list where there is none.
	np.Spec.Ingress = pick(d, nil, []networkingv1.NetworkPolicyIngressRule{})
	for range d.below(4) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: d.peers(), Ports: d.ports()})
	}
	np.Spec.Egress = pick(d, nil, []networkingv1.NetworkPolicyEgressRule{})
	for range d.below(4) {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: d.peers(), Ports: d.ports()})
	}
	return np
}

func (d *Dice) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	switch d.below(6) {
	case 1, 2:
		s.MatchLabels = map[string]string{pick(d, "app", "tier"): pick(d, "x", "y", "z", "")}
	case 3, 4:
		for range 1 + d.below(2) {
			s.MatchExpressions = append(s.MatchExpressions, d.expression())
		}
	case 5:
		s.MatchLabels = map[string]string{"app": pick(d, "x", "y")}
		s.MatchExpressions = []metav1.LabelSelectorRequirement{d.expression()}
	}
	return s
}

func (d *Dice) expression() metav1.LabelSelectorRequirement {
	e := metav1.LabelSelectorRequirement{
		Key:      pick(d, "app", "tier"),
		Operator: pick(d, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist),
	}
	if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
		e.Values = pick(d, []string{"x"}, []string{"x", "y"}, []string{"z", "x"}, []string{""})
	}
	if d.unreadable() {
		e.Operator = "Near"
	}
	return e
}

// namespaceSelector selects by the namespaces' names too.
func (d *Dice) namespaceSelector() *metav1.LabelSelector {
	names := pick(d, []string{"a"}, []string{"b"}, []string{"a", "c"})
	switch d.below(4) {
	case 1:
		return &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: names[0]}}
	case 2:
		operator := pick(d, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn)
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: corev1.LabelMetadataName, Operator: operator, Values: names}}}
	}
	return d.selector()
}

func (d *Dice) peers() []networkingv1.NetworkPolicyPeer {
	peers := pick(d, nil, []networkingv1.NetworkPolicyPeer{})
	for range d.below(4) {
		peers = append(peers, d.peer())
	}
	return peers
}

func (d *Dice) peer() networkingv1.NetworkPolicyPeer {
	if d.unreadable() {
		// Neither selectors nor a block, or both.
		return pick(d, networkingv1.NetworkPolicyPeer{},
			networkingv1.NetworkPolicyPeer{PodSelector: d.selector(), IPBlock: &networkingv1.IPBlock{CIDR: "0.0.0.0/0"}})
	}
	switch d.below(5) {
	case 0:
		return networkingv1.NetworkPolicyPeer{PodSelector: d.selector()}
	case 1:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: d.namespaceSelector()}
	case 2:
		return networkingv1.NetworkPolicyPeer{PodSelector: d.selector(), NamespaceSelector: d.namespaceSelector()}
	}
	block := &networkingv1.IPBlock{CIDR: d.cidr()}
	for range d.below(4) {
		block.Except = append(block.Except, d.cidr())
	}
	return networkingv1.NetworkPolicyPeer{IPBlock: block}
}

// cidr picks among blocks that overlap, that hold addresses of pods, of nodes and of external
// hosts, and that aren't written canonically.
func (d *Dice) cidr() string {
	if d.unreadable() {
		return pick(d, "nonsense", "::ffff:0.0.0.0/64")
	}
	return pick(d,
		"0.0.0.0/0", "10.244.0.0/16", "10.244.1.0/24", "10.244.0.0/23", "10.244.1.9/28", "10.244.0.1/32", "10.244.2.8/32",
		"128.0.0.0/1", "0.0.0.0/1", "172.30.0.0/24", "172.30.0.10/31", "192.0.2.0/24", "192.0.2.7/32", "10.0.0.1/8",
		"::ffff:10.244.0.0/112", "::/0", "fd00::/16", "fd00:1::/64", "fd00:2::8/125", "fd00::1/128", "fd00:30::/120",
		"2001:db8::/32", "8000::/1", "::/1")
}

func (d *Dice) ports() []networkingv1.NetworkPolicyPort {
	ports := pick(d, nil, []networkingv1.NetworkPolicyPort{})
	if d.oneIn(12) {
		// More than one multiport match holds.
		for number := range int32(20) {
			ports = append(ports, networkingv1.NetworkPolicyPort{Port: new(intstr.FromInt32(70 + 2*number))})
		}
		return ports
	}
	for range d.below(4) {
		ports = append(ports, d.port())
	}
	return ports
}

func (d *Dice) port() networkingv1.NetworkPolicyPort {
	port := networkingv1.NetworkPolicyPort{
		Protocol: pick(d, nil, new(corev1.ProtocolTCP), new(corev1.ProtocolUDP), new(corev1.ProtocolSCTP)),
	}
	if d.unreadable() {
		return d.unreadablePort(port)
	}
	switch d.below(5) {
	case 1:
		port.Port = new(intstr.FromInt32(pick[int32](d, 80, 81, 8080, 53, 7777, 1, 65535)))
	case 2, 3:
		port.Port = new(intstr.FromString(pick(d, "http", "dns", "other", "nobody")))
	case 4:
		first := pick[int32](d, 1, 53, 80, 8000, 57000)
		last := pick(d, first, first+1, first+27, first+7777, 65535)
		port.Port, port.EndPort = new(intstr.FromInt32(first)), new(last)
	}
	return port
}

func (d *Dice) unreadablePort(port networkingv1.NetworkPolicyPort) networkingv1.NetworkPolicyPort {
	switch d.below(5) {
	case 0:
		port.Protocol = new(corev1.Protocol("ICMP"))
	case 1:
		port.EndPort = new(int32(80)) // of no port
	case 2:
		port.Port, port.EndPort = new(intstr.FromString("http")), new(int32(80))
	case 3:
		port.Port, port.EndPort = new(intstr.FromInt32(80)), new(int32(79))
	case 4:
		port.Port = new(intstr.FromInt32(0))
	}
	return port
}
