package uninstall

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/apiservertest"
)

var server apiservertest.Server

func TestMain(m *testing.M) {
	os.Exit(server.Run(m))
}

// scene is a namespace with the agents' DaemonSet. Nothing acts on it but the test.
type scene struct {
	t      *testing.T
	admin  client.Client
	agents *appsv1.DaemonSet
	out    *strings.Builder
	*Uninstaller
}

func newScene(t *testing.T, timeout time.Duration) *scene {
	t.Helper()
	s := &scene{t: t, admin: server.Admin(t), agents: &appsv1.DaemonSet{}, out: &strings.Builder{}}
	text, err := os.ReadFile(filepath.Join("..", "..", "config", "agent", "agent.yaml"))
	require.NoError(t, err)
	require.NoError(t, yaml.UnmarshalStrict(text, s.agents))
	s.agents.Namespace = server.Namespace(t)
	s.Uninstaller = &Uninstaller{Client: s.admin, Namespace: s.agents.Namespace, Timeout: timeout, Out: s.out,
		lookEvery: 10 * time.Millisecond, explainEvery: time.Hour}
	return s
}

// install stores the DaemonSet with its agents at work on some nodes.
func (s *scene) install(nodes int32) {
	s.t.Helper()
	require.NoError(s.t, s.admin.Create(s.t.Context(), s.agents))
	s.setStatus(nodes, nodes, nodes)
}

func (s *scene) setStatus(desired, updated, available int32) {
	s.t.Helper()
	s.read()
	s.agents.Status = appsv1.DaemonSetStatus{ObservedGeneration: s.agents.Generation, DesiredNumberScheduled: desired,
		CurrentNumberScheduled: desired, UpdatedNumberScheduled: updated, NumberAvailable: available}
	require.NoError(s.t, s.admin.Status().Update(s.t.Context(), s.agents))
}

func (s *scene) read() {
	s.t.Helper()
	require.NoError(s.t, s.admin.Get(s.t.Context(), client.ObjectKeyFromObject(s.agents), s.agents))
}

// start runs the uninstaller and waits until it has turned the DaemonSet.
func (s *scene) start() <-chan error {
	s.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(s.t.Context()) }()
	require.Eventually(s.t, func() bool {
		s.read()
		return s.agents.Generation == 2
	}, apiservertest.Eventually, apiservertest.Tick)
	return ended
}

// The nodes are clean when every pod of the changed DaemonSet is ready; then the
// agents' reports go.
func TestEveryNodeIsEmptied(t *testing.T) {
	s := newScene(t, time.Minute)
	require.NoError(t, s.admin.Create(t.Context(), &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: "emptied"}}))
	s.install(3)
	ended := s.start()

	pod := s.agents.Spec.Template
	require.Equal(t, "100%", s.agents.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String())
	require.Equal(t, v1alpha1.TaskCleanup, pod.Labels[v1alpha1.TaskLabel])
	require.Subset(t, pod.Labels, s.agents.Spec.Selector.MatchLabels)
	require.Len(t, pod.Spec.Containers, 1)
	container := pod.Spec.Containers[0]
	require.Equal(t, []string{"agent", "cleanup", "--stay"}, container.Args)
	require.Nil(t, container.LivenessProbe)
	require.Equal(t, "/readyz", container.ReadinessProbe.HTTPGet.Path)
	require.Contains(t, container.VolumeMounts, corev1.VolumeMount{Name: "xtables-lock", MountPath: "/run/xtables.lock"})

	for _, updated := range []int32{0, 1, 2} {
		s.setStatus(3, updated, 3)
		time.Sleep(10 * s.lookEvery)
		require.Empty(t, ended, "%d nodes are updated", updated)
	}
	s.setStatus(3, 3, 2)
	time.Sleep(10 * s.lookEvery)
	require.Empty(t, ended, "one isn't clean")
	s.setStatus(3, 3, 3)
	require.NoError(t, <-ended)
	require.Contains(t, s.out.String(), "2 of 3 nodes are clean\n3 of 3 nodes are clean\nnothing of Moat is left on any node\n")

	reports := &v1alpha1.NodeEnforcementList{}
	require.NoError(t, s.admin.List(t.Context(), reports))
	require.Empty(t, reports.Items)

	require.NoError(t, s.Run(t.Context()), "a second run finds nothing to do")
	s.read()
	require.EqualValues(t, 2, s.agents.Generation)
}

func TestWithoutTheDaemonSetThereIsNothingToDo(t *testing.T) {
	s := newScene(t, time.Minute)
	require.NoError(t, s.Run(t.Context()))
	require.Equal(t, "there is no DaemonSet "+s.Namespace+"/moat-agent: no agents to stop\n", s.out.String())
}

// A node that never answers ends it when the time is over, and is named.
func TestANodeThatNeverAnswers(t *testing.T) {
	s := newScene(t, 2*time.Second)
	s.explainEvery = 300 * time.Millisecond
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "dead-"}}
	require.NoError(t, s.admin.Create(t.Context(), node))
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status."}}
	require.NoError(t, s.admin.Status().Update(t.Context(), node))
	s.install(2)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "moat-agent-x", Labels: s.agents.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(s.agents, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))}},
		Spec: corev1.PodSpec{NodeName: node.Name, Containers: []corev1.Container{{Name: agentContainer, Image: "none"}}},
	}
	require.NoError(t, s.admin.Create(t.Context(), pod))
	ended := s.start()
	s.setStatus(2, 1, 1)

	err := <-ended
	line := "node " + node.Name + ": the node is NotReady (NodeStatusUnknown: Kubelet stopped posting node status.), so that pod moat-agent-x can't be replaced there"
	require.ErrorContains(t, err, "not every node is clean after 2s: 0 of 2 nodes are clean")
	require.ErrorContains(t, err, "\n  "+line+"\n")
	require.ErrorContains(t, err, "helm uninstall --no-hooks")
	require.ErrorContains(t, err, "uninstall.cleanup: false")
	require.Contains(t, s.out.String(), "  "+line+"\n", "said while it waits, too")
	require.NotContains(t, s.out.String(), "nothing of Moat is left")
}

// It ends when it is told to, and says so.
func TestInterrupted(t *testing.T) {
	s := newScene(t, time.Minute)
	s.install(1)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(200*time.Millisecond, cancel)
	require.ErrorIs(t, s.Run(ctx), context.Canceled)
}

// Nobody knows of nodes any more.
func TestTheDaemonSetIsDeletedMeanwhile(t *testing.T) {
	s := newScene(t, time.Minute)
	s.install(1)
	ended := s.start()
	require.NoError(t, s.admin.Delete(t.Context(), s.agents))
	require.ErrorIs(t, <-ended, errDaemonSetGone)
}
