package enforcement

import (
	"maps"

	corev1 "k8s.io/api/core/v1"

	"github.com/moat-dev/moat/controllers/agents"
)

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

func agentStateOf(pod *corev1.Pod) agentState {
	if agents.Ready(pod) {
		return agentReady
	}
	return agentNotReady
}
