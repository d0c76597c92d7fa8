package enforcement

import (
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// agentLabels are the labels of the agent's pods, which config and the chart set.
var agentLabels = map[string]string{
	"app.kubernetes.io/name":      "moat",
	"app.kubernetes.io/component": "agent",
}

// isSubject says whether a policy can apply to the pod: it has a place on a
// node's network. A Terminating pod does until it is gone.
func isSubject(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" &&
		!pod.Spec.HostNetwork &&
		pod.Status.Phase != corev1.PodSucceeded &&
		pod.Status.Phase != corev1.PodFailed
}

// sameSubject says whether nothing changed that decides which policies apply to
// the pod, and on which node.
func sameSubject(before, after *corev1.Pod) bool {
	return isSubject(before) == isSubject(after) &&
		before.Spec.NodeName == after.Spec.NodeName &&
		maps.Equal(before.Labels, after.Labels)
}

// isAgent is false of a pod that empties its node: it vouches for no rule.
func isAgent(pod *corev1.Pod, agentNamespace string) bool {
	if pod.Namespace != agentNamespace || pod.Labels[v1alpha1.TaskLabel] == v1alpha1.TaskCleanup {
		return false
	}
	for key, value := range agentLabels {
		if pod.Labels[key] != value {
			return false
		}
	}
	return true
}

func agentStateOf(pod *corev1.Pod) agentState {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady && condition.Status == corev1.ConditionTrue {
			return agentReady
		}
	}
	return agentNotReady
}
