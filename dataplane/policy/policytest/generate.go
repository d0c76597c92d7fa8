package policytest

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// NodeAddress is the IPv4 address of the n-th node, which its hostNetwork pods
// have too.
func NodeAddress(n int) string { return fmt.Sprintf("172.30.0.%d", 10+n) }

func nodeAddresses(n int) []string {
	return []string{NodeAddress(n), fmt.Sprintf("fd00:30::%x", 10+n)}
}

// Cluster makes a cluster.
func (d *Dice) Cluster() *Objects {
	o := &Objects{}
	for _, name := range []string{"a", "b", "c"} {
		// The labels of a namespace may not be known yet.
		if d.stored || !d.oneIn(6) {
			o.Namespaces = append(o.Namespaces, d.namespace(name))
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

// namespace makes a namespace with the label that the API server gives to each,
// or an old one without any label.
func (d *Dice) namespace(name string) corev1.Namespace {
	namespace := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if !d.oneIn(6) {
		namespace.Labels = d.labels()
		namespace.Labels[corev1.LabelMetadataName] = name
	}
	return namespace
}

func (d *Dice) labels() map[string]string {
	labels := map[string]string{}
	for _, key := range []string{"app", "tier"} {
		switch value := pick(d, "", "x", "y", "z", "empty"); value {
		case "":
		case "empty":
			labels[key] = ""
		default:
			labels[key] = value
		}
	}
	return labels
}

// pod makes a pod with addresses of its own. One that has ended, that terminates
// or whose status is out of date may show those of another pod of its node.
func (d *Dice) pod(i int) corev1.Pod {
	node := d.below(NodeCount)
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: pick(d, "a", "a", "b", "c"), Name: fmt.Sprintf("pod-%d", i), Labels: d.labels()}}
	pod.Spec.NodeName = NodeName(node)
	pod.Status.Phase = corev1.PodRunning
	d.setAddresses(&pod, podAddresses(node, i))
	another := podAddresses(node, d.below(mostPods))
	kinds := 14
	if d.stored {
		// Of two pods with one address one has ended, and never both.
		another = podAddresses(node, (i+mostPods)%(mostPods+1))
		kinds = 12
	}
	switch d.below(kinds) {
	case 9:
		pod.Spec.HostNetwork = true
		d.setAddresses(&pod, nodeAddresses(node))
	case 10:
		pod.Status.Phase = pick(d, corev1.PodSucceeded, corev1.PodFailed)
		d.setAddresses(&pod, another)
	case 11:
		pod.DeletionTimestamp = &metav1.Time{}
	case 12: // this and the next: not stored
		pod.DeletionTimestamp = &metav1.Time{}
		d.setAddresses(&pod, another)
	case 13:
		d.setAddresses(&pod, another)
	}
	d.setContainers(&pod)
	return pod
}

// podAddresses returns 10.244.NODE.N and fd00:NODE::N. N spreads the pods over several dispatch
// chains, and puts two of them into one.
func podAddresses(node, i int) []string {
	number := 1 + i*7
	return []string{fmt.Sprintf("10.244.%d.%d", node, number), fmt.Sprintf("fd00:%d::%x", node, number)}
}

// setAddresses gives the pod one of the addresses, both in either order, or none,
// instead of those that it has.
func (d *Dice) setAddresses(pod *corev1.Pod, both []string) {
	v4, v6 := both[0], both[1]
	pod.Status.PodIPs = nil
	for _, ip := range pick(d, []string{v4}, []string{v4, v6}, []string{v6, v4}, []string{v6}, nil) {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip})
	}
}

// setContainers gives the pod containers of which some serve named ports: an
// ordinary one, at times a sidecar, and an init container that is gone before the
// pod serves anything.
func (d *Dice) setContainers(pod *corev1.Pod) {
	pod.Spec.Containers = []corev1.Container{{Name: "main", Ports: d.containerPorts()}}
	if d.oneIn(4) {
		sidecar := corev1.Container{Name: "sidecar", Ports: d.containerPorts()}
		sidecar.RestartPolicy = pick(d, new(corev1.ContainerRestartPolicyAlways), nil)
		pod.Spec.InitContainers = []corev1.Container{sidecar}
	}
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
