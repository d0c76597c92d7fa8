package policytest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// NodeCount is the number of nodes of a generated cluster.
const NodeCount = 3

// Bounds of a generated cluster: what goes wrong goes wrong in small clusters too.
const (
	mostPods   = 9
	mostPolicy = 8
)

// NodeName is the name of the n-th node, from 0.
func NodeName(n int) string { return fmt.Sprintf("node-%d", n) }

// NodeAddress is the address of the n-th node, which its hostNetwork pods have too.
func NodeAddress(n int) string { return fmt.Sprintf("172.30.0.%d", 10+n) }

// Cluster makes a cluster.
func (d *Dice) Cluster() *Objects {
	o := &Objects{}
	for _, name := range []string{"a", "b", "c"} {
		// The labels of a namespace may not be known yet.
		if !d.oneIn(6) {
			o.Namespaces = append(o.Namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: d.labels()}})
		}
	}
	for i := range 2 + d.below(mostPods-1) {
		o.Pods = append(o.Pods, d.pod(i))
	}
	for i := range d.below(mostPolicy + 1) {
		o.Policies = append(o.Policies, d.policy(i))
	}
	return o
}

func (d *Dice) labels() map[string]string {
	labels := map[string]string{}
	for _, key := range []string{"app", "tier"} {
		if value := pick(d, "", "x", "y", "z"); value != "" {
			labels[key] = value
		}
	}
	return labels
}

// pod makes a pod with addresses of its own, 10.244.NODE.i and fd00:NODE::i. The
// addresses of two pods that are alive never collide: which of the two would own
// the packet is not defined. One that has ended may have its successor's.
func (d *Dice) pod(i int) corev1.Pod {
	node := d.below(NodeCount)
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pick(d, "a", "a", "b", "c"), Name: fmt.Sprintf("pod-%d", i), Labels: d.labels()}}
	pod.Spec.NodeName = NodeName(node)
	number := 1 + i*7 // on several leaves, two of them on one
	v4, v6 := fmt.Sprintf("10.244.%d.%d", node, number), fmt.Sprintf("fd00:%d::%x", node, number)
	for _, ip := range pick(d, []string{v4}, []string{v4, v6}, []string{v6, v4}, []string{v6}, nil) {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip})
	}
	switch d.below(12) {
	case 9:
		pod.Spec.HostNetwork = true
		pod.Status.PodIPs = []corev1.PodIP{{IP: NodeAddress(node)}}
	case 10:
		pod.Status.Phase = pick(d, corev1.PodSucceeded, corev1.PodFailed)
		pod.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprintf("10.244.%d.1", node)}}
	case 11:
		pod.DeletionTimestamp = &metav1.Time{}
	}
	pod.Spec.Containers = []corev1.Container{{Name: "main", Ports: d.containerPorts()}}
	return pod
}

func (d *Dice) containerPorts() []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	for range d.below(4) {
		ports = append(ports, corev1.ContainerPort{
			Name:          pick(d, "http", "dns", "other"),
			ContainerPort: pick[int32](d, 80, 8080, 53, 7777),
			Protocol:      pick(d, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP, ""),
		})
	}
	return ports
}

func (d *Dice) policy(i int) networkingv1.NetworkPolicy {
	np := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: pick(d, "a", "a", "b", "c"), Name: fmt.Sprintf("policy-%d", i)}}
	np.Spec.PodSelector = *d.selector()
	const in, out = networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress
	np.Spec.PolicyTypes = pick(d, []networkingv1.PolicyType{in, out}, []networkingv1.PolicyType{in}, []networkingv1.PolicyType{out}, nil)
	for range d.below(4) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: d.peers(), Ports: d.ports()})
	}
	for range d.below(4) {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: d.peers(), Ports: d.ports()})
	}
	return np
}

func (d *Dice) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	switch d.below(5) {
	case 1, 2:
		s.MatchLabels = map[string]string{pick(d, "app", "tier"): pick(d, "x", "y", "z")}
	case 3, 4:
		for range 1 + d.below(2) {
			s.MatchExpressions = append(s.MatchExpressions, d.expression())
		}
	}
	return s
}

func (d *Dice) expression() metav1.LabelSelectorRequirement {
	e := metav1.LabelSelectorRequirement{
		Key:      pick(d, "app", "tier"),
		Operator: pick(d, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist),
	}
	if e.Operator == metav1.LabelSelectorOpIn || e.Operator == metav1.LabelSelectorOpNotIn {
		e.Values = pick(d, []string{"x"}, []string{"x", "y"}, []string{"z", "x"})
	}
	if d.oneIn(20) {
		e.Operator = "Near" // no program can read this
	}
	return e
}

func (d *Dice) peers() []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for range d.below(4) {
		peers = append(peers, d.peer())
	}
	return peers
}

func (d *Dice) peer() networkingv1.NetworkPolicyPeer {
	switch d.below(5) {
	case 0:
		return networkingv1.NetworkPolicyPeer{PodSelector: d.selector()}
	case 1:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: d.selector()}
	case 2:
		return networkingv1.NetworkPolicyPeer{PodSelector: d.selector(), NamespaceSelector: d.selector()}
	}
	block := &networkingv1.IPBlock{CIDR: d.cidr()}
	for range d.below(4) {
		block.Except = append(block.Except, d.cidr())
	}
	return networkingv1.NetworkPolicyPeer{IPBlock: block}
}

func (d *Dice) cidr() string {
	return pick(d,
		"0.0.0.0/0", "10.244.0.0/16", "10.244.1.0/24", "10.244.0.0/23", "10.244.1.9/28", "10.244.0.1/32", "10.244.2.8/32",
		"128.0.0.0/1", "0.0.0.0/1", "172.30.0.0/24", "192.0.2.0/24", "192.0.2.7/32", "::ffff:10.244.0.0/112",
		"::/0", "fd00::/16", "fd00:1::/64", "fd00:2::8/125", "fd00::1/128", "2001:db8::/32", "8000::/1", "::/1",
		"nonsense")
}

func (d *Dice) ports() []networkingv1.NetworkPolicyPort {
	var ports []networkingv1.NetworkPolicyPort
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
	switch d.below(5) {
	case 1:
		port.Port = new(intstr.FromInt32(pick[int32](d, 80, 81, 8080, 53, 7777, 1, 65535)))
	case 2, 3:
		port.Port = new(intstr.FromString(pick(d, "http", "dns", "other", "nobody")))
	case 4:
		first := pick[int32](d, 1, 53, 80, 8000, 0)
		port.Port, port.EndPort = new(intstr.FromInt32(first)), new(first+pick[int32](d, 0, 1, 27, 7777))
	}
	return port
}
