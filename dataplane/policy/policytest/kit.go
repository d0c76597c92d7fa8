package policytest

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
)

// PodObject returns a running pod of the namespace default.
func PodObject(name, node string, addrs ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	pod.Spec.NodeName = node
	for _, addr := range addrs {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: addr})
	}
	return pod
}

// DenyAll closes every pod of the namespace default.
func DenyAll(name string, generation int64) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name, UID: types.UID("uid-" + name), Generation: generation,
	}}
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	return np
}

// PodOn is apiPod with a name of its own.
func PodOn(name, node string, addrs ...string) *policy.Pod {
	pod := APIPod(name, node, addrs...)
	pod.Name = name
	return pod
}

// NodeWith returns the Node node-1 with the ranges of its pods.
func NodeWith(cidrs ...string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}, Spec: corev1.NodeSpec{PodCIDRs: cidrs}}
}

// APIPod is a pod as the API shows it.
func APIPod(uid, node string, addrs ...string) *policy.Pod {
	pod := &policy.Pod{Namespace: "default", Name: "web", Node: node, UID: types.UID(uid), Subject: true}
	for _, addr := range addrs {
		pod.Addrs = append(pod.Addrs, netip.MustParseAddr(addr))
	}
	return pod
}
