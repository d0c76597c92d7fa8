package uninstall

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// maxNamed is how many nodes are named.
const maxNamed = 10

// stuck names the nodes whose pod keeps them from being clean, and says why, sorted
// and at most maxNamed of them. nodeOf returns a Node, or nil where it is not known.
func stuck(pods []corev1.Pod, nodeOf func(name string) *corev1.Node) []string {
	left := slices.DeleteFunc(slices.Clone(pods), func(pod corev1.Pod) bool {
		return !ofAgents(&pod) || isClean(&pod)
	})
	slices.SortFunc(left, func(a, b corev1.Pod) int { return strings.Compare(placeOf(&a), placeOf(&b)) })
	var lines []string
	for i := range left {
		if i == maxNamed {
			lines = append(lines, fmt.Sprintf("and %d more", len(left)-maxNamed))
			break
		}
		lines = append(lines, placeOf(&left[i])+": "+whyNotClean(&left[i], nodeOf))
	}
	return lines
}

func ofAgents(pod *corev1.Pod) bool {
	controller := metav1.GetControllerOf(pod)
	return controller != nil && controller.Kind == "DaemonSet" && controller.Name == DaemonSetName
}

func cleans(pod *corev1.Pod) bool {
	return pod.Labels[v1alpha1.TaskLabel] == v1alpha1.TaskCleanup
}

func isClean(pod *corev1.Pod) bool {
	return cleans(pod) && pod.DeletionTimestamp == nil && conditionOf(pod, corev1.PodReady).Status == corev1.ConditionTrue
}

// placeOf names the pod's node. A pod that has none yet is bound to one by its
// affinity, which the DaemonSet's controller writes.
func placeOf(pod *corev1.Pod) string {
	if pod.Spec.NodeName != "" {
		return "node " + pod.Spec.NodeName
	}
	if affinity := pod.Spec.Affinity; affinity != nil && affinity.NodeAffinity != nil && affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution != nil {
		for _, term := range affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
			for _, field := range term.MatchFields {
				if field.Key == metav1.ObjectNameField && len(field.Values) == 1 {
					return "node " + field.Values[0]
				}
			}
		}
	}
	return "a node"
}

func whyNotClean(pod *corev1.Pod, nodeOf func(string) *corev1.Node) string {
	if reason := notReady(nodeOf(pod.Spec.NodeName)); pod.Spec.NodeName != "" && reason != "" {
		return fmt.Sprintf("the node is NotReady (%s), so that pod %s can't be replaced there", reason, pod.Name)
	}
	switch {
	case !cleans(pod) && pod.DeletionTimestamp != nil:
		return fmt.Sprintf("the agent in pod %s doesn't end", pod.Name)
	case !cleans(pod):
		return fmt.Sprintf("the agent in pod %s isn't replaced yet", pod.Name)
	case pod.DeletionTimestamp != nil:
		return fmt.Sprintf("pod %s is being deleted", pod.Name)
	case pod.Spec.NodeName == "":
		return fmt.Sprintf("pod %s can't be scheduled: %s", pod.Name, conditionOf(pod, corev1.PodScheduled).Message)
	}
	return fmt.Sprintf("pod %s: %s", pod.Name, containerOf(pod))
}

// notReady says why a node doesn't do what it is asked for; empty: it does, or
// nothing is known of it.
func notReady(node *corev1.Node) string {
	if node == nil {
		return ""
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady && condition.Status != corev1.ConditionTrue {
			return condition.Reason + ": " + condition.Message
		}
	}
	return ""
}

// containerOf says what the container that cleans is at, and its last words.
func containerOf(pod *corev1.Pod) string {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name != agentContainer {
			continue
		}
		last := status.LastTerminationState.Terminated
		if status.State.Terminated != nil {
			last = status.State.Terminated
		}
		switch waiting := status.State.Waiting; {
		case last != nil && last.ExitCode != 0:
			return fmt.Sprintf("removing Moat's rules failed (exit code %d): %s", last.ExitCode, strings.TrimSpace(last.Message))
		case waiting != nil && waiting.Message != "":
			return "its container can't start: " + waiting.Reason + ": " + waiting.Message
		case waiting != nil:
			return "its container can't start: " + waiting.Reason
		}
	}
	return "it hasn't removed Moat's rules yet"
}

// conditionOf returns an empty condition where the pod has none of the type.
func conditionOf(pod *corev1.Pod, kind corev1.PodConditionType) corev1.PodCondition {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == kind {
			return condition
		}
	}
	return corev1.PodCondition{}
}
