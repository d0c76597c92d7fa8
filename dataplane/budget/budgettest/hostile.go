// Package budgettest makes expensive policies: each is small enough for an API server to
// store, and would become as much as its kind can in the kernel of a node.
package budgettest

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// largest is how much a stored policy takes at most, in bytes: the limit of etcd's
// requests, which Kubernetes keeps at 1.5 MiB (--max-request-bytes).
const largest = 3 << 19

// A Generator makes policies of one namespace. Equal seeds give equal policies. The zero
// value can't be used.
type Generator struct {
	namespace string
	random    *rand.Rand
	made      int
}

// New returns a generator for a namespace.
func New(namespace string, seed uint64) *Generator {
	return &Generator{namespace: namespace, random: rand.New(rand.NewPCG(seed, 0))} //nolint:gosec // a test
}

// Next returns another policy.
func (g *Generator) Next() *networkingv1.NetworkPolicy {
	shapes := []func(int) networkingv1.NetworkPolicySpec{
		Exceptions, ManyCIDRs, NamesOfPorts, Everything, PeersAndPorts,
		g.manyRules, g.namedIngress, g.blocksAndNames, g.mixed,
	}
	shape := shapes[g.random.IntN(len(shapes))]
	for size := g.size(); ; size /= 2 {
		if np := g.object(shape(size)); storable(np) {
			return np
		}
	}
}

// storable reports whether an API server takes an object of that size. Its JSON is longer
// than what Size counts, which costs less.
func storable(np *networkingv1.NetworkPolicy) bool {
	if np.Size() > largest {
		return false
	}
	text, err := json.Marshal(np)
	return err == nil && len(text) <= largest
}

// size is small or large, each as often as ten times as much.
func (g *Generator) size() int {
	size := 1 + g.random.IntN(9)
	for range g.random.IntN(5) {
		size *= 10
	}
	return size
}

func (g *Generator) object(spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	g.made++
	if g.random.IntN(3) == 0 { // pods of few policies and of many
		spec.PodSelector.MatchLabels = map[string]string{"app": fmt.Sprint("a", g.random.IntN(4))}
	}
	return Named(g.namespace, fmt.Sprint("p", g.made), g.made, spec)
}

// Named makes a policy of a spec. The number says how old it is: a larger one is younger.
func Named(namespace, name string, number int, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, UID: types.UID(namespace + "/" + name), Generation: 1,
			CreationTimestamp: metav1.NewTime(time.Unix(int64(number), 0)),
		},
		Spec: spec,
	}
}

// Exceptions takes single addresses out of all IPv6 addresses: each leaves up to 128
// prefixes.
func Exceptions(n int) networkingv1.NetworkPolicySpec {
	block := &networkingv1.IPBlock{CIDR: "::/0"}
	for i := range n {
		block.Except = append(block.Except, fmt.Sprintf("%x::1/128", 1+i%0xffff))
	}
	return egress(networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: block}}})
}

// Exceptions4 takes single addresses out of all IPv4 addresses.
func Exceptions4(n int) networkingv1.NetworkPolicySpec {
	block := &networkingv1.IPBlock{CIDR: "0.0.0.0/0"}
	for i := range n {
		block.Except = append(block.Except, fmt.Sprintf("%d.%d.%d.77/32", 1+i%200, i/200%256, i/51200))
	}
	return egress(networkingv1.NetworkPolicyEgressRule{To: []networkingv1.NetworkPolicyPeer{{IPBlock: block}}})
}

// ManyCIDRs lists ranges that don't touch.
func ManyCIDRs(n int) networkingv1.NetworkPolicySpec {
	var rule networkingv1.NetworkPolicyEgressRule
	for i := range n {
		block := &networkingv1.IPBlock{CIDR: fmt.Sprintf("%d.%d.%d.0/25", 1+i>>16, i>>8&255, i&255)}
		rule.To = append(rule.To, networkingv1.NetworkPolicyPeer{IPBlock: block})
	}
	return egress(rule)
}

// NamesOfPorts combines selectors with names of egress ports: each pair is a set.
func NamesOfPorts(n int) networkingv1.NetworkPolicySpec {
	var rule networkingv1.NetworkPolicyEgressRule
	for i := range n {
		rule.To = append(rule.To, pods(fmt.Sprint("x", i)))
		rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Port: new(intstr.FromString(fmt.Sprint("p", i)))})
	}
	return egress(rule)
}

// Everything selects all pods of the cluster, each time in other words.
func Everything(n int) networkingv1.NetworkPolicySpec {
	var rule networkingv1.NetworkPolicyIngressRule
	for i := range n {
		rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{
			NamespaceSelector: &metav1.LabelSelector{},
			PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
				{Key: "no", Operator: metav1.LabelSelectorOpNotIn, Values: []string{fmt.Sprint(i)}},
			}},
		})
	}
	return ingress(rule)
}

// PeersAndPorts combines n peers with five times as many groups of ports that fit no
// other: each pair is a rule.
func PeersAndPorts(n int) networkingv1.NetworkPolicySpec { return Peers(n, min(5*15*n, 30_000)) }

// Peers combines peers with single ports, of which no two touch.
func Peers(peers, ports int) networkingv1.NetworkPolicySpec {
	var rule networkingv1.NetworkPolicyIngressRule
	for i := range peers {
		rule.From = append(rule.From, pods(fmt.Sprint("x", i)))
	}
	for i := range ports {
		rule.Ports = append(rule.Ports, networkingv1.NetworkPolicyPort{Port: new(intstr.FromInt32(int32(1 + 2*i)))})
	}
	return ingress(rule)
}

func (g *Generator) manyRules(n int) networkingv1.NetworkPolicySpec {
	spec := ingress()
	for i := range n {
		rule := networkingv1.NetworkPolicyIngressRule{From: []networkingv1.NetworkPolicyPeer{pods(fmt.Sprint("x", g.random.IntN(n)))}}
		rule.Ports = []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(int32(1 + i%60_000)))}}
		spec.Ingress = append(spec.Ingress, rule)
	}
	return spec
}

func (g *Generator) namedIngress(n int) networkingv1.NetworkPolicySpec {
	spec := Peers(1+g.random.IntN(20), 0)
	for i := range n {
		spec.Ingress[0].Ports = append(spec.Ingress[0].Ports, networkingv1.NetworkPolicyPort{Port: new(intstr.FromString(fmt.Sprint("p", i)))})
	}
	return spec
}

// blocksAndNames combines exceptions with names of egress ports.
func (g *Generator) blocksAndNames(n int) networkingv1.NetworkPolicySpec {
	spec := Exceptions4(n)
	for i := range 1 + g.random.IntN(n) {
		spec.Egress[0].Ports = append(spec.Egress[0].Ports, networkingv1.NetworkPolicyPort{Port: new(intstr.FromString(fmt.Sprint("p", i)))})
	}
	return spec
}

func (g *Generator) mixed(n int) networkingv1.NetworkPolicySpec {
	spec := Exceptions(1 + g.random.IntN(n))
	spec.Egress = append(spec.Egress, NamesOfPorts(1+g.random.IntN(n)).Egress...)
	spec.Ingress = append(Peers(1+g.random.IntN(n), 1+g.random.IntN(n)).Ingress, Everything(1+g.random.IntN(n)).Ingress...)
	spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	return spec
}

func pods(app string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}
}

func ingress(rules ...networkingv1.NetworkPolicyIngressRule) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, Ingress: rules}
}

func egress(rules ...networkingv1.NetworkPolicyEgressRule) networkingv1.NetworkPolicySpec {
	return networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}, Egress: rules}
}

// Pod is a pod of a namespace with one address of each family, which the number decides.
func Pod(namespace string, number int, labels map[string]string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint("pod-", number), Labels: labels}}
	pod.Status.PodIPs = []corev1.PodIP{
		{IP: fmt.Sprintf("10.%d.%d.%d", number>>16, number>>8&255, number&255)},
		{IP: fmt.Sprintf("fd00::%x:%x", number>>16, number&0xffff)},
	}
	pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "p1", ContainerPort: int32(8000 + number%2)}}}}
	return pod
}
