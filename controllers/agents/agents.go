// Package agents tells the pods of Moat's agents from all others, and says whether
// one of them is at work. It is pure.
package agents

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// DaemonSetName is what config and the chart call the agents' DaemonSet.
const DaemonSetName = "moat-agent"

// Labels returns the labels of the agents' pods, which config and the chart set.
func Labels() map[string]string {
	return map[string]string{
		"app.kubernetes.io/name":      "moat",
		"app.kubernetes.io/component": "agent",
	}
}

// Is reports whether the pod is an agent of the Moat in a namespace. A pod that
// empties its node is none: it vouches for no rule.
func Is(pod *corev1.Pod, namespace string) bool {
	if pod.Namespace != namespace || pod.Labels[v1alpha1.TaskLabel] == v1alpha1.TaskCleanup {
		return false
	}
	for key, value := range Labels() {
		if pod.Labels[key] != value {
			return false
		}
	}
	return true
}

// Ready reports whether the kubelet says that the agent is at work.
func Ready(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
