package enforcement

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/controllers/agents"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
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

func agentStateOf(pod *corev1.Pod) judge.AgentState {
	if agents.Ready(pod) {
		return judge.AgentReady
	}
	return judge.AgentNotReady
}

// uidOf is that by which the node's kubelet knows a pod.
func uidOf(pod *corev1.Pod) types.UID {
	if uid, static := pod.Annotations[corev1.MirrorPodAnnotationKey]; static {
		return types.UID(uid)
	}
	return pod.UID
}

// digestOf returns the digest that trimPod has left in a pod.
func digestOf(pod *corev1.Pod) string { return pod.GenerateName }
