package uninstall

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// onNode returns a pod of the DaemonSet.
func onNode(node string, change ...func(*corev1.Pod)) corev1.Pod {
	controller := true
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:            DaemonSetName + "-" + node,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: DaemonSetName, Controller: &controller}},
		},
		Spec: corev1.PodSpec{NodeName: node},
	}
	for _, c := range change {
		c(&pod)
	}
	return pod
}

func cleaning(pod *corev1.Pod) {
	pod.Labels = map[string]string{v1alpha1.TaskLabel: v1alpha1.TaskCleanup}
}

func ready(pod *corev1.Pod) {
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
}

func ending(pod *corev1.Pod) { pod.DeletionTimestamp = &metav1.Time{Time: time.Unix(0, 0)} }

func container(state, last corev1.ContainerState) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{
			{Name: "sidecar", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "NotThis"}}},
			{Name: agentContainer, State: state, LastTerminationState: last},
		}
	}
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func ended(code int32, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Message: message}}
}

func unscheduled(pod *corev1.Pod) {
	pod.Spec.NodeName = ""
	pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{"full"}},
		}}},
	}}}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "Insufficient memory."}}
}

func TestWhyANodeIsNotClean(t *testing.T) {
	dead := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status."},
	}}}
	alive := &corev1.Node{Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	var none corev1.ContainerState
	for name, test := range map[string]struct {
		pod  corev1.Pod
		node *corev1.Node
		want []string
	}{
		"clean":            {onNode("a", cleaning, ready), alive, nil},
		"clean, dead node": {onNode("a", cleaning, ready), dead, nil},
		"ready agent":      {onNode("a", ready), alive, []string{"node a: the agent in pod moat-agent-a isn't replaced yet"}},
		"ending agent":     {onNode("a", ready, ending), alive, []string{"node a: the agent in pod moat-agent-a doesn't end"}},
		"clean and ending": {onNode("a", cleaning, ready, ending), alive, []string{"node a: pod moat-agent-a is being deleted"}},
		"dead node": {onNode("a", ending), dead, []string{
			"node a: the node is NotReady (NodeStatusUnknown: Kubelet stopped posting node status.), so that pod moat-agent-a can't be replaced there"}},
		"unknown node": {onNode("a", ending), nil, []string{"node a: the agent in pod moat-agent-a doesn't end"}},
		"no room":      {onNode("full", cleaning, unscheduled), nil, []string{"node full: pod moat-agent-full can't be scheduled: Insufficient memory."}},
		"no image": {onNode("a", cleaning, container(waiting("ImagePullBackOff", "no such image"), none)), alive, []string{
			"node a: pod moat-agent-a: its container can't start: ImagePullBackOff: no such image"}},
		"starting": {onNode("a", cleaning, container(waiting("ContainerCreating", ""), none)), alive, []string{
			"node a: pod moat-agent-a: its container can't start: ContainerCreating"}},
		"fails again and again": {onNode("a", cleaning, container(waiting("CrashLoopBackOff", "back-off 10s"), ended(1, "still in use: moat-4-egress\n"))), alive, []string{
			"node a: pod moat-agent-a: removing Moat's rules failed (exit code 1): still in use: moat-4-egress"}},
		"failed just now": {onNode("a", cleaning, container(ended(1, "still in use"), ended(1, "earlier"))), alive, []string{
			"node a: pod moat-agent-a: removing Moat's rules failed (exit code 1): still in use"}},
		"at work": {onNode("a", cleaning, container(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, none)), alive, []string{
			"node a: pod moat-agent-a: it hasn't removed Moat's rules yet"}},
		"of others": {corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "moat-operator-x"}}, alive, nil},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, stuck([]corev1.Pod{test.pod}, func(string) *corev1.Node { return test.node }))
		})
	}
}

func TestTenNodesAreNamed(t *testing.T) {
	var pods []corev1.Pod
	for i := range 12 {
		pods = append(pods, onNode(fmt.Sprintf("node-%02d", 11-i)))
	}
	lines := stuck(pods, func(string) *corev1.Node { return nil })
	require.Len(t, lines, 11)
	require.True(t, strings.HasPrefix(lines[0], "node node-00:"), lines[0])
	require.Equal(t, "and 2 more", lines[10])
}

func TestProgress(t *testing.T) {
	status := func(observed int64, desired, current, updated, available int32) appsv1.DaemonSetStatus {
		return appsv1.DaemonSetStatus{ObservedGeneration: observed, DesiredNumberScheduled: desired,
			CurrentNumberScheduled: current, UpdatedNumberScheduled: updated, NumberAvailable: available}
	}
	for name, test := range map[string]struct {
		status appsv1.DaemonSetStatus
		want   string
		done   bool
	}{
		"not seen yet":               {status(1, 3, 3, 3, 3), "waiting for the controller of DaemonSets", false},
		"agents run":                 {status(2, 3, 3, 0, 3), "0 of 3 nodes are clean", false},
		"agents end":                 {status(2, 3, 3, 0, 0), "0 of 3 nodes are clean", false},
		"one clean, two agents":      {status(2, 3, 3, 1, 3), "1 of 3 nodes are clean", false},
		"one at work, two agents":    {status(2, 3, 3, 1, 2), "0 of 3 nodes are clean", false},
		"all at work":                {status(2, 3, 3, 3, 0), "0 of 3 nodes are clean", false},
		"two clean, one between":     {status(2, 3, 2, 2, 2), "2 of 3 nodes are clean", false},
		"two clean, one agent stays": {status(2, 3, 3, 2, 2), "1 of 3 nodes are clean", false},
		"all clean":                  {status(2, 3, 3, 3, 3), "3 of 3 nodes are clean", true},
		"no nodes":                   {status(2, 0, 0, 0, 0), "0 of 0 nodes are clean", true},
	} {
		t.Run(name, func(t *testing.T) {
			got := progressOf(&appsv1.DaemonSet{Status: test.status}, 2)
			require.Equal(t, test.want, got.String())
			require.Equal(t, test.done, got.done())
		})
	}
}
