package judge

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// DoubtOf says why a report proves nothing about the node as it is now. It returns "" where
// nothing speaks against the report. node is nil where there is no Node. An agent of an older
// release reports neither Node nor boot: then only the report's owner is compared.
func DoubtOf(node *corev1.Node, stored *v1alpha1.NodeEnforcement) string {
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

// unseen counts the pods that the report doesn't list. Their agent hasn't programmed them yet,
// or not with the labels that they have now. Agents of older releases list no pods and name no
// Node: nothing is missing in their reports.
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
