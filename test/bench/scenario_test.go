package bench

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// The cluster of a scenario. Namespaces form teams of ten. Each has apps of its
// pods, and policies: deny all, allow the same namespace, and one per app that lets
// in another app of the team and a block of addresses, and lets out to
// others. So what a change of a pod touches doesn't depend on how many teams there
// are.

const (
	teamSize = 10
	apps     = 20

	// The ports that the apps' policies allow.
	tcpPort = 8080
	udpPort = 9000

	// basePolicies are those of a namespace that aren't about an app.
	basePolicies = 2

	podsPerNode = 100
)

// Bounds of the sizes, from the addresses: remote pods are in 10.128.0.0/9, local
// ones in the node's pod CIDR, where some room is left for new ones.
const (
	mostPods   = 1 << 20
	mostLocal  = 150
	firstLocal = 10
	firstNew   = firstLocal + mostLocal
	newAddrs   = 80
)

// Names of the nodes that are real: of all local pods, and of the pods that send.
const (
	localNode  = "node-1"
	senderNode = "node-2"
)

func namespaceName(i int) string { return fmt.Sprintf("app-%04d", i) }

func teamLabels(i int) map[string]string {
	return map[string]string{"team": fmt.Sprintf("team-%d", i/teamSize)}
}

func appLabels(k int) map[string]string { return map[string]string{"app": fmt.Sprintf("a%d", k%apps)} }

func (s size) namespace(i int) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceName(i), Labels: teamLabels(i)}}
}

// pods returns the pods of a namespace as they are stored when they run.
func (s size) podsOf(i int) []*corev1.Pod {
	local := s.localPods()
	list := make([]*corev1.Pod, s.pods)
	for p := range list {
		number := i*s.pods + p
		pod := newPod(namespaceName(i), fmt.Sprintf("pod-%04d", p), appLabels(p))
		if j, ok := local[number]; ok {
			place(pod, localNode, localAddr(firstLocal+j))
		} else {
			place(pod, fmt.Sprintf("remote-%05d", number/podsPerNode), remoteAddr(number))
		}
		list[p] = pod
	}
	return list
}

// localPods maps the numbers of the pods on the local node to 0, 1, …. They are
// spread over namespaces and apps; the first is the first of all pods.
func (s size) localPods() map[int]int {
	local := make(map[int]int, s.local)
	for j := range s.local {
		i := j % s.namespaces
		local[i*s.pods+(7*i+j/s.namespaces)%s.pods] = j
	}
	return local
}

func localAddr(host int) netip.Addr { return netip.AddrFrom4([4]byte{10, 244, 1, byte(host)}) }

func remoteAddr(number int) netip.Addr {
	var bytes [4]byte
	binary.BigEndian.PutUint32(bytes[:], 10<<24|128<<16+uint32(number))
	return netip.AddrFrom4(bytes)
}

// newPod is a pod about as large as those of real clusters.
func newPod(namespace, name string, labels map[string]string) *corev1.Pod {
	all := map[string]string{"pod-template-hash": "5d4f8c7b9", "app.kubernetes.io/managed-by": "bench"}
	for k, v := range labels {
		all[k] = v
	}
	quantities := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi")}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: name, Labels: all,
			Annotations: map[string]string{"bench/checksum": "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "app-5d4f8c7b9", UID: types.UID("8a7c1b9e-5a0e-4b8f-9d3e-" + fmt.Sprintf("%012d", len(name))),
			}},
		},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "app", Image: "registry.example/team/app:v1.2.3",
				Env:       []corev1.EnvVar{{Name: "CONFIG", Value: "/etc/app/config.yaml"}, {Name: "LOG_LEVEL", Value: "info"}},
				Ports:     []corev1.ContainerPort{{Name: "http", ContainerPort: tcpPort}, {ContainerPort: udpPort, Protocol: corev1.ProtocolUDP}},
				Resources: corev1.ResourceRequirements{Requests: quantities, Limits: quantities},
			}},
		},
	}
}

// place binds a pod to a node and gives it the status of one that runs there.
func place(pod *corev1.Pod, node string, addr netip.Addr) {
	pod.Spec.NodeName = node
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: addr.String(), PodIPs: []corev1.PodIP{{IP: addr.String()}},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: "app", Image: "registry.example/team/app:v1.2.3", Ready: true,
			ImageID: "registry.example/team/app@sha256:0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8",
			State:   corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Unix(1700000000, 0)}},
		}},
	}
	for _, condition := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{
			Type: condition, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Unix(1700000000, 0),
		})
	}
}

// policiesOf returns the policies of a namespace.
func (s size) policiesOf(i int) []*networkingv1.NetworkPolicy {
	list := []*networkingv1.NetworkPolicy{
		newPolicy(i, "deny-all", metav1.LabelSelector{}, nil, nil),
		newPolicy(i, "same-namespace", metav1.LabelSelector{},
			[]networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}},
			[]networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}),
	}
	for k := range s.policies - basePolicies {
		list = append(list, appPolicy(i, k))
	}
	return list
}

// newPolicy makes a policy of both directions that allows peers on all ports.
func newPolicy(i int, name string, selector metav1.LabelSelector, from, to []networkingv1.NetworkPolicyPeer) *networkingv1.NetworkPolicy {
	policy := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespaceName(i), Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: selector,
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
		},
	}
	if from != nil {
		policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: from}}
	}
	if to != nil {
		policy.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: to}}
	}
	return policy
}

// appPolicy is about app k.
func appPolicy(i, k int) *networkingv1.NetworkPolicy {
	policy := newPolicy(i, fmt.Sprintf("app-%d", k), metav1.LabelSelector{MatchLabels: appLabels(k)}, nil, nil)
	policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{
		{From: []networkingv1.NetworkPolicyPeer{appOfTeam(i, appLabels(k+1))}, Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, tcpPort), port(corev1.ProtocolUDP, udpPort)}},
		{From: []networkingv1.NetworkPolicyPeer{block(fmt.Sprintf("172.%d.0.0/16", 16+k%16), fmt.Sprintf("172.%d.1.0/24", 16+k%16))}, Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, tcpPort)}},
	}
	policy.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{
		{To: []networkingv1.NetworkPolicyPeer{appOfTeam(i, appLabels(k+2))}, Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, tcpPort)}},
		{To: []networkingv1.NetworkPolicyPeer{block("0.0.0.0/0", "10.0.0.0/8", "172.16.0.0/12")}, Ports: []networkingv1.NetworkPolicyPort{port(corev1.ProtocolTCP, 443)}},
	}
	return policy
}

func appOfTeam(i int, labels map[string]string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: teamLabels(i)},
		PodSelector:       &metav1.LabelSelector{MatchLabels: labels},
	}
}

func block(cidr string, except ...string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr, Except: except}}
}

func port(protocol corev1.Protocol, number int32) networkingv1.NetworkPolicyPort {
	value := intstr.FromInt32(number)
	return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &value}
}
