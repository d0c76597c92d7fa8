package survey

import (
	"maps"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/controllers/agents"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
)

// IsSubject says whether a policy can apply to the pod: it has a place on a
// node's network. A Terminating pod does until it is gone.
func IsSubject(pod *corev1.Pod) bool {
	return pod.Spec.NodeName != "" &&
		!pod.Spec.HostNetwork &&
		pod.Status.Phase != corev1.PodSucceeded &&
		pod.Status.Phase != corev1.PodFailed
}

// SameSubject says whether nothing changed that decides which policies apply to
// the pod, and on which node.
func SameSubject(before, after *corev1.Pod) bool {
	return IsSubject(before) == IsSubject(after) &&
		before.Spec.NodeName == after.Spec.NodeName &&
		maps.Equal(before.Labels, after.Labels)
}

// AgentStateOf returns the state of an agent's pod.
func AgentStateOf(pod *corev1.Pod) judge.AgentState {
	if agents.Ready(pod) {
		return judge.AgentReady
	}
	return judge.AgentNotReady
}

// uidOf returns the uid by which the node's kubelet knows a pod.
func uidOf(pod *corev1.Pod) types.UID {
	if uid, static := pod.Annotations[corev1.MirrorPodAnnotationKey]; static {
		return types.UID(uid)
	}
	return pod.UID
}

// DigestOf returns the digest that trimPod has left in a pod of the cache.
func DigestOf(pod *corev1.Pod) string { return pod.GenerateName }
