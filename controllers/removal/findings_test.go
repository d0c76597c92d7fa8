package removal

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// agentOn returns a pod of the DaemonSet whose agent runs and is Ready.
func agentOn(node string, change ...func(*corev1.Pod)) corev1.Pod {
	controller, grace := true, int64(60)
	pod := corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:            DaemonSetName + "-" + node,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: DaemonSetName, Controller: &controller}},
		},
		Spec: corev1.PodSpec{NodeName: node, TerminationGracePeriodSeconds: &grace},
	}
	running(&pod)
	for _, c := range change {
		c(&pod)
	}
	return pod
}

func setReady(pod *corev1.Pod, status corev1.ConditionStatus) {
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
}

func container(state, last corev1.ContainerState) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		setReady(pod, corev1.ConditionFalse)
		pod.Status.ContainerStatuses = []corev1.ContainerStatus{
			{Name: "sidecar", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
			{Name: agentContainer, State: state, LastTerminationState: last},
		}
	}
}

func running(pod *corev1.Pod) {
	container(corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, corev1.ContainerState{})(pod)
	setReady(pod, corev1.ConditionTrue)
}

func waitsFor(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

func ended(code int32, message string) corev1.ContainerState {
	return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: "Error", Message: message}}
}

func unready(pod *corev1.Pod) { setReady(pod, corev1.ConditionFalse) }
func ending(pod *corev1.Pod)  { pod.DeletionTimestamp = &metav1.Time{Time: time.Unix(0, 0)} }
func orphaned(pod *corev1.Pod) {
	pod.OwnerReferences = nil
}
func grace(seconds int64) func(*corev1.Pod) {
	return func(pod *corev1.Pod) { pod.Spec.TerminationGracePeriodSeconds = &seconds }
}
func notStarted(pod *corev1.Pod) { pod.Status = corev1.PodStatus{Phase: corev1.PodPending} }
func evicted(pod *corev1.Pod) {
	pod.Status = corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "The node was low on resource: memory."}
}
func cleaned(pod *corev1.Pod) {
	pod.Labels = map[string]string{v1alpha1.TaskLabel: v1alpha1.TaskCleanup}
	grace(30)(pod)
}

func unscheduled(pod *corev1.Pod) {
	notStarted(pod)
	pod.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
		NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
			{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{pod.Spec.NodeName}},
		}}},
	}}}
	pod.Spec.NodeName = ""
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Message: "Insufficient memory."}}
}

var (
	nothing  corev1.ContainerState
	dead     = node{notReady: "NodeStatusUnknown: Kubelet stopped posting node status."}
	badImage = container(waitsFor("ImagePullBackOff", "Back-off pulling image"), nothing)
)

// Each case is one Node, named n. The want is the kind and the detail.
func TestWhatKeepsRemovalFromANode(t *testing.T) {
	const reported, silent = true, false
	for name, test := range map[string]struct {
		node     node
		reported bool
		agents   []corev1.Pod
		want     *finding
	}{
		"an agent at work":                          {node{}, reported, []corev1.Pod{agentOn("n")}, nil},
		"one that hasn't reported yet":              {node{}, silent, []corev1.Pod{agentOn("n")}, nil},
		"a node that Moat never reached":            {node{}, silent, nil, nil},
		"a dead one that Moat never reached":        {dead, silent, nil, nil},
		"an image that can't be pulled":             {node{}, silent, []corev1.Pod{agentOn("n", badImage)}, nil},
		"a crash before the first report":           {node{}, silent, []corev1.Pod{agentOn("n", container(waitsFor("CrashLoopBackOff", ""), ended(2, "bad flag")))}, nil},
		"an agent that an old uninstall cleaned by": {node{}, reported, []corev1.Pod{agentOn("n", cleaned)}, nil},
		"an agent whose old pod still ends":         {node{}, reported, []corev1.Pod{agentOn("n", ending), agentOn("n")}, nil},

		"NotReady":                        {dead, reported, []corev1.Pod{agentOn("n", unready)}, &finding{kind: nodeNotReady, detail: dead.notReady}},
		"NotReady, without a report":      {dead, silent, []corev1.Pod{agentOn("n", unready)}, &finding{kind: nodeNotReady, detail: dead.notReady}},
		"NotReady, and its agent is gone": {dead, reported, nil, &finding{kind: nodeNotReady, detail: dead.notReady}},

		"no agent": {node{}, reported, nil, &finding{kind: agentMissing}},
		"a new image can't be pulled": {node{}, reported, []corev1.Pod{agentOn("n", badImage)},
			&finding{kind: agentFails, detail: "pod moat-agent-n: ImagePullBackOff: Back-off pulling image"}},
		"a crash loop": {node{}, reported, []corev1.Pod{agentOn("n", container(waitsFor("CrashLoopBackOff", "back-off 5m"), ended(1, "iptables\n is missing\n")))},
			&finding{kind: agentFails, detail: "pod moat-agent-n: CrashLoopBackOff: back-off 5m; exit code 1: Error: iptables is missing"}},
		"an agent that has just crashed": {node{}, reported, []corev1.Pod{agentOn("n", container(ended(1, ""), nothing))},
			&finding{kind: agentFails, detail: "pod moat-agent-n: exit code 1: Error"}},
		"no room": {node{}, reported, []corev1.Pod{agentOn("n", unscheduled)},
			&finding{kind: agentFails, detail: "pod moat-agent-n can't be scheduled: Insufficient memory."}},
		"a container that is being made": {node{}, reported, []corev1.Pod{agentOn("n", container(waitsFor("ContainerCreating", ""), nothing))},
			&finding{kind: agentStarts, detail: "pod moat-agent-n: ContainerCreating"}},
		"a pod that nobody has started": {node{}, reported, []corev1.Pod{agentOn("n", notStarted)},
			&finding{kind: agentStarts, detail: "the kubelet hasn't started pod moat-agent-n yet"}},
		"an agent that is replaced": {node{}, reported, []corev1.Pod{agentOn("n", ending)},
			&finding{kind: agentStarts, detail: "pod moat-agent-n is being deleted"}},
		"an evicted pod": {node{}, reported, []corev1.Pod{agentOn("n", evicted)},
			&finding{kind: agentStarts, detail: "pod moat-agent-n has ended (Evicted: The node was low on resource: memory.)"}},
		"an agent that isn't Ready": {node{}, reported, []corev1.Pod{agentOn("n", unready)},
			&finding{kind: agentNotReady, detail: "pod moat-agent-n"}},
		"a pod without owner": {node{}, reported, []corev1.Pod{agentOn("n", orphaned)},
			&finding{kind: agentOrphaned, detail: "pod moat-agent-n"}},
		"an agent of 0.2.0": {node{}, reported, []corev1.Pod{agentOn("n", grace(30))},
			&finding{kind: agentHasNoTime, detail: "pod moat-agent-n has 30 s to stop"}},
	} {
		t.Run(name, func(t *testing.T) {
			seen := cluster{nodes: map[string]node{"n": test.node}, reports: map[string]bool{}, agents: map[string][]agent{}, operatorReady: true}
			seen.reports["n"] = test.reported
			for i := range test.agents {
				at := nodeNameOf(&test.agents[i])
				seen.agents[at] = append(seen.agents[at], agentOf(&test.agents[i]))
			}
			found := findingsOf(seen)
			if test.want == nil {
				require.Empty(t, found)
				return
			}
			test.want.node = "n"
			require.Equal(t, []finding{*test.want}, found)
			require.Equal(t, test.want.kind == agentStarts || test.want.kind == agentNotReady, mayPass(found))
		})
	}
}

// The operator takes the taints off when Moat is removed. Without one they would stay.
func TestATaintNeedsAnOperator(t *testing.T) {
	seen := cluster{nodes: map[string]node{"a": {tainted: true}, "b": {}}, operatorReady: true}
	require.Empty(t, findingsOf(seen))
	seen.operatorReady = false
	require.Equal(t, []finding{{kind: taintStands, node: "a"}}, findingsOf(seen))
	require.False(t, mayPass(findingsOf(seen)))
	require.Contains(t, describe(findingsOf(seen)), "kubectl taint node NODE isolation.moat.dev/agent-absent-")
}

// The report of a Node that was deleted goes by itself.
func TestANodeThatIsGoneKeepsNothing(t *testing.T) {
	require.Empty(t, findingsOf(cluster{reports: map[string]bool{"gone": true}}))
}

// Each kind has its words and what to do; many nodes don't hide another reason.
func TestEveryReasonIsShown(t *testing.T) {
	var found []finding
	for i := range 3000 {
		found = append(found, finding{kind: nodeNotReady, node: fmt.Sprintf("node-%04d", i)})
	}
	for k := agentFails; k <= taintStands; k++ {
		found = append(found, finding{kind: k, node: "single"})
	}
	text := describe(found)
	require.Contains(t, text, "3000 nodes are NotReady: nothing ends the agents there:\n  node-0000\n")
	require.Contains(t, text, "  node-0009\n  and 2990 more\nTo do: repair the node")
	require.Equal(t, int(taintStands)+1, strings.Count(text, "\nTo do: "))
	require.Len(t, wordings, int(taintStands)+1)
	for k, words := range wordings {
		require.Contains(t, text, words.toDo, k)
		if k != nodeNotReady {
			require.Contains(t, countsOf(found), "; 1 "+words.one, k)
		}
	}
	require.Contains(t, text, "helm uninstall --no-hooks")
	require.Contains(t, text, "uninstall.check: false")
	require.Less(t, strings.Count(text, "\n"), 60)
}

func TestWhyNothingKeepsMoat(t *testing.T) {
	require.Contains(t, summaryOf(cluster{}), "there is no DaemonSet moat-agent and no node with rules")
	require.Contains(t, summaryOf(cluster{daemonSet: true, nodes: map[string]node{"n": {}}}), "no agent has come to work on any node")
	require.Contains(t, summaryOf(cluster{daemonSet: true, nodes: map[string]node{"n": {}, "m": {}}, reports: map[string]bool{"n": true}}), "each of the 1 nodes")
}
