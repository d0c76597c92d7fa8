package removal

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/apiservertest"
)

var server apiservertest.Server

func TestMain(m *testing.M) {
	os.Exit(server.Run(m))
}

// scene is a namespace with agents. Nothing acts on it but the test.
type scene struct {
	t     *testing.T
	admin client.Client
	out   *strings.Builder
	*Check
}

func newScene(t *testing.T) *scene {
	t.Helper()
	admin, out := server.Admin(t), &strings.Builder{}
	return &scene{t, admin, out, &Check{Client: admin, Namespace: server.Namespace(t), Out: out, lookEvery: 50 * time.Millisecond}}
}

// node makes a Node with a report; both go with the test, since all tests share them.
func (s *scene) node(name string) *corev1.Node {
	s.t.Helper()
	made := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, object := range []client.Object{made, &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: name}}} {
		require.NoError(s.t, s.admin.Create(s.t.Context(), object))
		s.t.Cleanup(func() { require.NoError(s.t, s.admin.Delete(context.Background(), object)) })
	}
	return made
}

// agent makes an agent's pod, and its status as the kubelet would write it.
func (s *scene) agent(node string, change ...func(*corev1.Pod)) *corev1.Pod {
	s.t.Helper()
	pod := agentOn(node, change...)
	pod.Namespace, pod.Labels = s.Namespace, componentLabels("agent")
	pod.Spec.Containers = []corev1.Container{{Name: agentContainer, Image: "none"}}
	if len(pod.OwnerReferences) > 0 {
		pod.OwnerReferences[0].UID = "00000000-0000-0000-0000-000000000000"
	}
	status := pod.Status
	require.NoError(s.t, s.admin.Create(s.t.Context(), &pod))
	pod.Status = status
	s.store(&pod)
	return &pod
}

func (s *scene) store(pod *corev1.Pod) {
	s.t.Helper()
	require.NoError(s.t, s.admin.Status().Update(s.t.Context(), pod))
}

func TestAllNodesAreReached(t *testing.T) {
	s := newScene(t)
	s.node("reached")
	s.agent("reached")
	require.NoError(t, s.Run(t.Context()))
	require.Contains(t, s.out.String(), "removal reaches each of the 1 nodes")
}

func TestANodeThatNeverAnswers(t *testing.T) {
	s := newScene(t)
	s.node("alive")
	s.agent("alive")
	node := s.node("dead")
	node.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown, Reason: "NodeStatusUnknown", Message: "Kubelet stopped posting node status."}}
	require.NoError(t, s.admin.Status().Update(t.Context(), node))
	s.agent("dead")
	s.Patience = time.Hour // it would never end if the check waited for a dead node
	require.ErrorIs(t, s.Run(t.Context()), ErrOutOfReach)
	require.Contains(t, s.out.String(), "1 node is NotReady: nothing ends the agent there:\n  dead: NodeStatusUnknown: Kubelet stopped posting node status.\nTo do: repair the node")
	require.NotContains(t, s.out.String(), "alive")
}

// An upgrade has just replaced the agents: the check waits for them, and no longer than
// it should.
func TestTheCheckWaitsForAgentsThatStart(t *testing.T) {
	s := newScene(t)
	s.node("starts")
	pod := s.agent("starts", unready)
	s.Patience = 200 * time.Millisecond
	require.ErrorIs(t, s.Run(t.Context()), ErrOutOfReach)
	require.Contains(t, s.out.String(), "waiting, since this may pass: 1 node has an agent that isn't Ready")

	s.Patience = apiservertest.Eventually
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	running(pod)
	s.store(pod)
	require.NoError(t, <-ended)
}

// Taints are read from Nodes, and the operator from its pod.
func TestATaintOnANode(t *testing.T) {
	s := newScene(t)
	node := s.node("tainted")
	s.agent("tainted")
	node.Spec.Taints = []corev1.Taint{{Key: AbsentTaint, Effect: corev1.TaintEffectNoSchedule}}
	require.NoError(t, s.admin.Update(t.Context(), node))
	require.ErrorIs(t, s.Run(t.Context()), ErrOutOfReach)
	require.Contains(t, s.out.String(), "1 node keeps new pods away by a taint")

	operator := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: "operator", Labels: componentLabels("operator")},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "operator", Image: "none"}}},
	}
	require.NoError(t, s.admin.Create(t.Context(), operator))
	setReady(operator, corev1.ConditionTrue)
	s.store(operator)
	require.NoError(t, s.Run(t.Context()))
}

func TestWithoutMoatThereIsNothingToDo(t *testing.T) {
	s := newScene(t)
	require.NoError(t, s.Run(t.Context()))
	require.Equal(t, "there is no DaemonSet moat-agent and no node with rules of Moat: there is nothing to clean\n", s.out.String())
}

// counter counts lists by their type.
type counter struct {
	client.Reader
	lists map[string]int
}

func (c counter) List(ctx context.Context, list client.ObjectList, options ...client.ListOption) error {
	c.lists[fmt.Sprintf("%T", list)]++
	return c.Reader.List(ctx, list, options...)
}

// Lists come in pages, and of reports their names alone: 5,000 nodes fit into the Job.
func TestListsAreReadInPages(t *testing.T) {
	s := newScene(t)
	s.pageSize = 4
	const count = 5
	for i := range count {
		s.node(fmt.Sprintf("page-%d", i))
	}
	counted := counter{s.admin, map[string]int{}}
	s.Client = counted
	require.ErrorIs(t, s.Run(t.Context()), ErrOutOfReach, "no agent is there")
	require.Contains(t, s.out.String(), fmt.Sprintf("%d nodes have a NodeEnforcement", count), "none is missed at a page's end")
	require.Equal(t, map[string]int{"*v1.NodeList": 2, "*v1.PartialObjectMetadataList": 2, "*v1.PodList": 2}, counted.lists)
}

func TestInterrupted(t *testing.T) {
	s := newScene(t)
	s.node("interrupted")
	s.agent("interrupted", unready)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, s.Run(ctx), context.Canceled)
}
