package compile_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// manyPods returns the endpoints of pods that one policy selects. Every tenth has
// another number for its named port.
func manyPods(pods int, np *networkingv1.NetworkPolicy) []policy.Endpoint {
	var local []*policy.Pod
	for i := range pods {
		local = append(local, policy.ParsePod(&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprint(i)},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: int32(8000 + i%10)}}}}},
			Status:     corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250)}, {IP: fmt.Sprintf("fd00::%x", 1+i)}}},
		}))
	}
	return policy.Endpoints(local, []*policy.Policy{policy.ParseNetworkPolicy(np)})
}

// manyRules is a policy of distinct rules, each of which is there twice.
func manyRules(rules int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "many"}}
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	for i := range rules {
		port := intstr.FromInt(1 + i/2)
		named := intstr.FromString("http")
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{
			From:  []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"peer": fmt.Sprint(i / 2)}}}},
			Ports: []networkingv1.NetworkPolicyPort{{Port: &port}, {Port: &named}},
		})
	}
	return np
}

// manyBlocks is a policy of one rule with blocks of which each excepts some
// addresses.
func manyBlocks(blocks, excepts int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "blocks"}}
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	np.Spec.Ingress = make([]networkingv1.NetworkPolicyIngressRule, 1)
	for i := range blocks {
		block := &networkingv1.IPBlock{CIDR: fmt.Sprintf("%d.%d.%d.0/24", 11+i>>16, i>>8&255, i&255)}
		for j := range excepts {
			block.Except = append(block.Except, fmt.Sprintf("%d.%d.%d.%d/32", 11+i>>16, i>>8&255, i&255, 2*j+1))
		}
		np.Spec.Ingress[0].From = append(np.Spec.Ingress[0].From, networkingv1.NetworkPolicyPeer{IPBlock: block})
	}
	return np
}

// Pods with the same rules share one chain, and a rule that is written twice is
// there once, in the place of the first.
func TestManyRules(t *testing.T) {
	out := compile.Compile(compile.Host{}, ruleset.IPv4, manyPods(100, manyRules(2000)), compile.Links{}, compile.Guard{})
	profiles := 0
	for _, chain := range out.Ruleset.Chains {
		if len(chain.Rules) > 100 {
			profiles++
			require.Len(t, chain.Rules, 1001)
		}
	}
	require.Equal(t, 10, profiles)
}

func BenchmarkManyRules(b *testing.B) {
	for _, rules := range []int{1000, 10_000} {
		endpoints := manyPods(100, manyRules(rules))
		b.Run(fmt.Sprintf("%d rules, 100 pods", rules), func(b *testing.B) {
			for b.Loop() {
				compile.Compile(compile.Host{}, ruleset.IPv4, endpoints, compile.Links{}, compile.Guard{})
			}
		})
	}
}

func BenchmarkManyBlocks(b *testing.B) {
	for _, size := range [][2]int{{10_000, 0}, {1000, 100}} {
		endpoints := manyPods(100, manyBlocks(size[0], size[1]))
		b.Run(fmt.Sprintf("%d blocks, %d exceptions each, 100 pods", size[0], size[1]), func(b *testing.B) {
			for b.Loop() {
				compile.Compile(compile.Host{}, ruleset.IPv4, endpoints, compile.Links{}, compile.Guard{})
			}
		})
	}
}

// A policy may name thousands of ports. What that costs doesn't grow with the node's
// pods, which serve few of them.
func TestManyNamesOfPortsCostOnce(t *testing.T) {
	np := manyRules(2)
	for i := range 20_000 {
		name := intstr.FromString(fmt.Sprint("p", i))
		np.Spec.Ingress[0].Ports = append(np.Spec.Ingress[0].Ports, networkingv1.NetworkPolicyPort{Port: &name})
	}
	allocated := func(pods int) uint64 {
		endpoints := manyPods(pods, np)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		compile.Compile(compile.Host{}, ruleset.IPv4, endpoints, compile.Links{}, compile.Guard{})
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	few := allocated(10) // with the ten numbers that a name has
	require.Less(t, allocated(250), few+2<<20)
}
