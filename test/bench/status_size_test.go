package bench

import (
	"fmt"
	"math/rand/v2"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/test/bench/results"
)

// fleetSize is that of a cluster of simulated nodes. Policies are per namespace, and
// half of them are those of AppIsolations; pods are per node, and spread at random
// over namespaces and nodes.
//
// Of each half, one policy selects all pods of its namespace and each other one the
// pods of an app. The app a0 of the first namespace runs on every node, as a
// DaemonSet does: so two policies of an app and two of a namespace concern all nodes.
type fleetSize struct {
	nodes, namespaces, policies, pods int
}

var fleetSizes = map[string]fleetSize{
	small:         {nodes: 50, namespaces: 5, policies: 10, pods: 5},
	results.Fleet: {nodes: 5000, namespaces: 100, policies: 20, pods: 10},
}

func (s fleetSize) validate() error {
	if s.nodes < 1 || s.namespaces < 2 || s.policies < 6 || s.policies%2 != 0 {
		return fmt.Errorf("NODES has to be 1 at least, NAMESPACES 2, and POLICIES an even number of 6 at least")
	}
	return nil
}

// appsOf is the number of a namespace's apps that have policies.
func (s fleetSize) appsOf() int { return s.policies/2 - 1 }

// kindOfPolicy is who writes a policy.
type kindOfPolicy string

const (
	generated   kindOfPolicy = "AppIsolation"
	handWritten kindOfPolicy = "NetworkPolicy"
)

// wholeNamespace is the app of a policy that selects all pods.
const wholeNamespace = -1

// subject is what a policy is about.
type subject struct {
	kind           kindOfPolicy
	namespace, app int
}

func (s subject) name() string {
	prefix := map[kindOfPolicy]string{generated: "isolate", handWritten: "by-hand"}[s.kind]
	if s.app == wholeNamespace {
		return prefix + "-all"
	}
	return fmt.Sprintf("%s-a%d", prefix, s.app)
}

func (s fleetSize) subjects(namespace int) []subject {
	var list []subject
	for _, kind := range []kindOfPolicy{generated, handWritten} {
		for app := wholeNamespace; app < s.appsOf(); app++ {
			list = append(list, subject{kind, namespace, app})
		}
	}
	return list
}

func (s subject) labels() map[string]string {
	if s.app == wholeNamespace {
		return nil
	}
	return map[string]string{"app": fmt.Sprintf("a%d", s.app)}
}

// firstPort is another one for each policy of a namespace: so each allows what the
// others don't from the start, and a change of one is none of what another's status
// says of it.
func (s subject) firstPort() int32 {
	return tcpPort + 2*int32(s.app+1) + map[kindOfPolicy]int32{handWritten: 1}[s.kind]
}

// appIsolation lets an app of the namespace in at one port.
func (s subject) appIsolation() *v1alpha1.AppIsolation {
	selector := &v1alpha1.LabelSelector{}
	for key, value := range s.labels() {
		selector.MatchLabels = map[string]v1alpha1.LabelValue{key: v1alpha1.LabelValue(value)}
	}
	return &v1alpha1.AppIsolation{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceName(s.namespace), Name: s.name()},
		Spec: v1alpha1.AppIsolationSpec{
			Selector:   selector,
			Directions: []v1alpha1.Direction{v1alpha1.DirectionIngress},
			Ingress: []v1alpha1.IngressRule{{
				Name:  "clients",
				From:  []v1alpha1.Peer{{App: &v1alpha1.AppPeer{LabelSelector: v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"app": "a1"}}}}},
				Ports: []v1alpha1.Port{{Port: new(intstr.FromInt32(s.firstPort()))}},
			}},
		},
	}
}

// networkPolicy is the same, written by hand.
func (s subject) networkPolicy() *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceName(s.namespace), Name: s.name()},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: s.labels()},
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{
				From:  []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a1"}}}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: new(intstr.FromInt32(s.firstPort()))}},
			}},
		},
	}
}

// placed is a pod on a node.
type placed struct {
	namespace, app, node int
}

// placement is the same in each run.
func (s fleetSize) placement() []placed {
	random := rand.New(rand.NewPCG(1, 2))
	var pods []placed
	for i := range s.nodes * s.pods {
		pods = append(pods, placed{namespace: i % s.namespaces, app: i / s.namespaces % s.appsOf(), node: random.IntN(s.nodes)})
	}
	for node := range s.nodes {
		pods = append(pods, placed{node: node})
	}
	return pods
}

// nodesOf returns the nodes that a policy concerns, in order.
func (s fleetSize) nodesOf(pods []placed, namespace, app int) []int {
	concerned := make([]bool, s.nodes)
	for _, p := range pods {
		if p.namespace == namespace && (app == wholeNamespace || p.app == app) {
			concerned[p.node] = true
		}
	}
	var nodes []int
	for node, yes := range concerned {
		if yes {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

func fleetNode(i int) string { return fmt.Sprintf("node-%05d", i) }

func (s fleetSize) pod(number int, p placed) *corev1.Pod {
	pod := newPod(namespaceName(p.namespace), fmt.Sprintf("pod-%06d", number), subject{app: p.app}.labels())
	pod.Spec.NodeName = fleetNode(p.node)
	return pod
}
