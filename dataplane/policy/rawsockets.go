package policy

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Two names of the capability that lets a program send packets with headers of its own: the API's
// name, and the one that stands for all capabilities.
const (
	netRaw          = corev1.Capability("NET_RAW")
	allCapabilities = corev1.Capability("ALL")
)

// rawSockets reports whether a container of the pod may have CAP_NET_RAW: containerd gives it
// to each that doesn't drop it.
func rawSockets(pod *corev1.Pod) bool {
	holds := func(c *corev1.Container) bool { return holdsNetRaw(c.SecurityContext) }
	for i := range pod.Spec.Containers {
		if holds(&pod.Spec.Containers[i]) {
			return true
		}
	}
	for i := range pod.Spec.InitContainers {
		if holds(&pod.Spec.InitContainers[i]) {
			return true
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if holdsNetRaw(pod.Spec.EphemeralContainers[i].SecurityContext) {
			return true
		}
	}
	return false
}

// holdsNetRaw does as the runtime: it drops capabilities first, and then adds some. A privileged
// container has all.
func holdsNetRaw(context *corev1.SecurityContext) bool {
	switch {
	case context == nil:
		return true
	case context.Privileged != nil && *context.Privileged:
		return true
	case context.Capabilities == nil:
		return true
	}
	names := func(list []corev1.Capability) bool {
		return slices.Contains(list, netRaw) || slices.Contains(list, "CAP_"+netRaw) || slices.Contains(list, allCapabilities)
	}
	return !names(context.Capabilities.Drop) || names(context.Capabilities.Add)
}
