package enforcement

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// doubtOf says why a report proves nothing of the node as it is now, or "". The Node is nil
// where there is none. A report of an agent of an older release says neither of which Node nor
// of which boot it is, and only its owner is compared.
func doubtOf(node *corev1.Node, stored *v1alpha1.NodeEnforcement) string {
	const earlier = "the node's report is about an earlier Node of this name"
	said := &stored.Status
	if node == nil {
		if said.NodeUID != "" {
			return "there is a report, but no Node of this name any more"
		}
		return ""
	}
	if said.NodeUID != "" && said.NodeUID != node.UID {
		return earlier
	}
	if len(stored.OwnerReferences) > 0 && !slices.ContainsFunc(stored.OwnerReferences, func(o metav1.OwnerReference) bool { return o.UID == node.UID }) {
		return earlier
	}
	if boot := node.Status.NodeInfo.BootID; boot != "" && said.BootID != "" && said.BootID != boot {
		return "the node's report is from before its last boot"
	}
	return ""
}

// unseen counts the pods that the report doesn't list: its agent hasn't put the rules in
// force for them, or not for the labels that they have. Agents of older releases list
// none and name no Node; their reports are believed.
func unseen(report *v1alpha1.NodeEnforcementStatus, digests []string) int {
	if report.NodeUID == "" {
		return 0
	}
	missing := 0
	for _, digest := range digests {
		if _, listed := slices.BinarySearch(report.Pods, digest); !listed {
			missing++
		}
	}
	return missing
}

// changedPods returns the digests that one of two reports lists and the other doesn't.
func changedPods(before, after *v1alpha1.NodeEnforcementStatus) map[string]bool {
	changed := map[string]bool{}
	for _, lists := range [][2][]string{{before.Pods, after.Pods}, {after.Pods, before.Pods}} {
		for _, digest := range lists[0] {
			if _, listed := slices.BinarySearch(lists[1], digest); !listed {
				changed[digest] = true
			}
		}
	}
	return changed
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
