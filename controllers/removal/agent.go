package removal

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// leastGrace is how many seconds an agent needs at least to find out that Moat is
// removed, and to clean. Agents of before 0.3.0 have Kubernetes' 30 seconds and don't
// clean.
const leastGrace = 31

// agent is a pod of the agents.
type agent struct {
	// runs is whether its container runs, as far as the kubelet has said.
	runs bool
	// cleans is whether it cleans its node when Moat is removed. Where it doesn't, fault
	// says why.
	cleans bool
	fault  finding
}

func agentOf(pod *corev1.Pod) agent {
	status, known := statusOf(pod)
	fault, faulty := judge(pod)
	return agent{runs: known && status.State.Running != nil, cleans: !faulty, fault: fault}
}

// judge says what keeps the agent in a pod from cleaning its node, or that nothing does.
func judge(pod *corev1.Pod) (finding, bool) {
	status, known := statusOf(pod)
	switch {
	case pod.Labels[v1alpha1.TaskLabel] == v1alpha1.TaskCleanup && isReady(pod):
		return finding{}, false // what an uninstall of 0.2.0 left: the node is clean
	case pod.DeletionTimestamp != nil:
		return finding{kind: agentStarts, detail: fmt.Sprintf("pod %s is being deleted", pod.Name)}, true
	case pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded:
		return finding{kind: agentStarts, detail: fmt.Sprintf("pod %s has ended (%s)", pod.Name, joinReason(pod.Status.Reason, pod.Status.Message))}, true
	case hasNoRoom(pod):
		return finding{kind: agentFails, detail: fmt.Sprintf("pod %s can't be scheduled: %s", pod.Name, conditionOf(pod, corev1.PodScheduled).Message)}, true
	case !known:
		return finding{kind: agentStarts, detail: fmt.Sprintf("the kubelet hasn't started pod %s yet", pod.Name)}, true
	case status.State.Running == nil:
		return notRunning(pod.Name, status), true
	case metav1.GetControllerOf(pod) == nil:
		return finding{kind: agentOrphaned, detail: "pod " + pod.Name}, true
	case graceOf(pod) < leastGrace:
		return finding{kind: agentHasNoTime, detail: fmt.Sprintf("pod %s has %d s to stop", pod.Name, graceOf(pod))}, true
	case !isReady(pod):
		return finding{kind: agentNotReady, detail: "pod " + pod.Name}, true
	}
	return finding{}, false
}

// hasNoRoom is true of a pod that the scheduler found no room for.
func hasNoRoom(pod *corev1.Pod) bool {
	return pod.Spec.NodeName == "" && conditionOf(pod, corev1.PodScheduled).Status == corev1.ConditionFalse
}

// notRunning says why a container doesn't run. One that starts for the first time may do
// so at any moment; one that ended or can't start has a fault.
func notRunning(pod string, status corev1.ContainerStatus) finding {
	last := status.LastTerminationState.Terminated
	if status.State.Terminated != nil {
		last = status.State.Terminated
	}
	var words []string
	starting := last == nil
	if waiting := status.State.Waiting; waiting != nil {
		words = append(words, joinReason(waiting.Reason, waiting.Message))
		starting = starting && (waiting.Reason == "" || waiting.Reason == "ContainerCreating" || waiting.Reason == "PodInitializing")
	}
	if last != nil {
		words = append(words, strings.TrimSpace(fmt.Sprintf("exit code %d: %s", last.ExitCode, joinReason(last.Reason, last.Message))))
	}
	f := finding{kind: agentFails, detail: fmt.Sprintf("pod %s: %s", pod, strings.Join(words, "; "))}
	if starting {
		f.kind = agentStarts
	}
	return f
}

// statusOf returns the status of the agent's container; false where the kubelet hasn't
// written one.
func statusOf(pod *corev1.Pod) (corev1.ContainerStatus, bool) {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == agentContainer {
			return status, true
		}
	}
	return corev1.ContainerStatus{}, false
}

// graceOf returns how many seconds a pod has to stop.
func graceOf(pod *corev1.Pod) int64 {
	if pod.Spec.TerminationGracePeriodSeconds == nil {
		return corev1.DefaultTerminationGracePeriodSeconds
	}
	return *pod.Spec.TerminationGracePeriodSeconds
}

func isReady(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && conditionOf(pod, corev1.PodReady).Status == corev1.ConditionTrue
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

// joinReason writes a reason and its message on one line. Either may be empty.
func joinReason(reason, message string) string {
	message = strings.Join(strings.Fields(message), " ")
	switch {
	case reason == "":
		return message
	case message == "":
		return reason
	}
	return reason + ": " + message
}
