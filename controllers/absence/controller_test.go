package absence

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

func valueOf(t *testing.T, gauge prometheus.Gauge) float64 {
	t.Helper()
	var metric dto.Metric
	require.NoError(t, gauge.Write(&metric))
	return metric.GetGauge().GetValue()
}

func TestANodeWithoutAgentTakesNoNewPods(t *testing.T) {
	s := newScene(t)
	m, other := s.member("a"), s.member("b")
	s.operate(Options{Mode: Taint})
	s.eventually(func() bool { return m.state() == v1alpha1.AgentReady && other.state() == v1alpha1.AgentReady }, "both agents are Ready")

	m.setAgentReady(corev1.ConditionFalse)
	s.eventually(func() bool { return m.state() == v1alpha1.AgentNotReady }, "the report says NotReady")
	require.False(t, isTainted(m.now()), "not at once")
	s.eventually(func() bool { return isTainted(m.now()) }, "the taint comes")
	require.Equal(t, []corev1.Taint{foreign, taint}, m.now().Spec.Taints)
	s.eventually(func() bool { return m.told(v1alpha1.EventReasonNoAgent) }, "an event of the Node")
	require.EqualValues(t, 1, valueOf(t, taintedNodes))
	require.EqualValues(t, 1, valueOf(t, absentNodes))

	m.end()
	s.eventually(func() bool { return m.state() == v1alpha1.AgentMissing }, "the report says Missing")
	require.True(t, isTainted(m.now()))

	m.start()
	s.eventually(func() bool { return !isTainted(m.now()) }, "the taint goes")
	require.Equal(t, []corev1.Taint{foreign}, m.now().Spec.Taints)
	s.eventually(func() bool { return m.state() == v1alpha1.AgentReady }, "the report says Ready")
	s.eventually(func() bool { return m.told(v1alpha1.EventReasonNewPodsAgain) }, "an event of the Node")
	require.Equal(t, []corev1.Taint{foreign}, other.now().Spec.Taints)
	require.Zero(t, valueOf(t, absentNodes))
}

// After an outage of the API server all agents that it cut off are NotReady for a while, and
// the operator is one that begins: its predecessor lost the lead. What the reports say of the
// time before taints no node. The same goes for a Node that is Ready again.
func TestAnOutageTaintsNoNode(t *testing.T) {
	s := newScene(t)
	m, away := s.member("a"), s.member("b")
	stop := s.operate(Options{Mode: Taint})
	s.eventually(func() bool { return m.state() == v1alpha1.AgentReady && away.state() == v1alpha1.AgentReady }, "both agents are Ready")
	away.setNodeReady(corev1.ConditionUnknown)
	away.setAgentReady(corev1.ConditionFalse)
	m.setAgentReady(corev1.ConditionFalse)
	s.eventually(func() bool { return m.state() == v1alpha1.AgentNotReady && away.state() == v1alpha1.AgentUnknown }, "the reports say so")
	stop()
	time.Sleep(soon + time.Second) // the outage

	s.operate(Options{Mode: Taint})
	away.setNodeReady(corev1.ConditionTrue)
	start := time.Now()
	s.eventually(func() bool { return away.state() == v1alpha1.AgentNotReady }, "the Node is back")
	for time.Since(start) < soon+soon/4 {
		require.Zero(t, countTainted([]*member{m, away}))
		time.Sleep(apiservertest.Tick)
	}
	away.setAgentReady(corev1.ConditionTrue)
	s.eventually(func() bool { return isTainted(m.now()) }, "an agent that doesn't come back is absent all the same")
	require.False(t, isTainted(away.now()))
}

// What is no absence of an agent taints no node.
func TestNodesThatKeepTakingPods(t *testing.T) {
	s := newScene(t)
	windows := func(node *corev1.Node) { node.Labels[corev1.LabelOSStable] = "windows" }
	degraded, away, excluded, open := s.member("degraded"), s.member("away"), s.member("excluded", windows), s.member("open")
	degraded.say(v1alpha1.NodeConditionDegraded, metav1.ConditionTrue)
	s.operate(Options{Mode: Taint})

	away.setNodeReady(corev1.ConditionUnknown)
	away.setAgentReady(corev1.ConditionFalse)
	excluded.end()
	open.report.Status.Conditions = nil // no guard stands
	require.NoError(t, open.agent.Status().Update(t.Context(), open.report))
	open.end()
	want := map[*member]v1alpha1.AgentState{
		degraded: v1alpha1.AgentReady, away: v1alpha1.AgentUnknown, excluded: v1alpha1.AgentExcluded, open: v1alpha1.AgentMissing,
	}
	for m, state := range want {
		s.eventually(func() bool { return m.state() == state }, "the agent of %s is %s", m.node.Name, state)
	}
	for m := range want {
		require.False(t, isTainted(m.now()), m.node.Name)
	}
	s.never(func() bool { return countTainted([]*member{degraded, away, excluded, open}) > 0 }, "a node is tainted")
}

func TestTheBoundHolds(t *testing.T) {
	s := newScene(t)
	var members []*member
	for i := range 7 { // 30 % are two
		members = append(members, s.member(fmt.Sprint("n", i)))
	}
	s.operate(Options{Mode: Taint})
	for _, m := range members[:5] {
		m.end()
	}
	s.eventually(func() bool { return countTainted(members) == 2 }, "two nodes are tainted")
	s.never(func() bool { return countTainted(members) > 2 }, "more nodes are tainted")
	require.EqualValues(t, 5, valueOf(t, absentNodes))
	require.EqualValues(t, 2, valueOf(t, taintedNodes))
	require.EqualValues(t, 3, valueOf(t, sparedNodes))
}

// An operator that starts takes away what one before it left.
func TestATaintThatWasLeftGoes(t *testing.T) {
	for name, options := range map[string]Options{"the agent is Ready": {Mode: Taint}, "it is switched off": {Mode: Report}} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			m := s.member("a")
			if options.Mode != Taint {
				m.end()
			}
			m.taint()
			s.operate(options)
			s.eventually(func() bool { return !isTainted(m.now()) }, "the taint goes")
			require.Equal(t, []corev1.Taint{foreign}, m.now().Spec.Taints)
		})
	}
}

// Another writer's taint survives, however old the operator's cache is.
func TestNoTaintOfOthersIsLost(t *testing.T) {
	s := newScene(t)
	m := s.member("a")
	stale := m.now()
	another := corev1.Taint{Key: "example.com/another", Effect: corev1.TaintEffectNoExecute}
	changed := m.now()
	changed.Spec.Taints = append(changed.Spec.Taints, another)
	require.NoError(t, s.admin.Update(t.Context(), changed))

	writer, err := client.New(apiServer.Operator(t), client.Options{
		Scheme: apiservertest.NewScheme(), Cache: &client.CacheOptions{Reader: staleReader{s.admin, stale}},
	})
	require.NoError(t, err)
	live := apiservertest.ClientOf(t, apiServer.Operator(t))
	w := &taints{client: writer, live: live, events: events.NewFakeRecorder(10)}
	put := func(node *corev1.Node) { node.Spec.Taints = append(node.Spec.Taints, taint) }
	_, err = w.change(t.Context(), m.node.Name, put)
	require.NoError(t, err)
	require.Equal(t, []corev1.Taint{foreign, another, taint}, m.now().Spec.Taints)
	stale.Spec.Taints = []corev1.Taint{foreign, taint}
	require.NoError(t, w.takeAll(t.Context(), []string{m.node.Name}, "test"))
	require.Equal(t, []corev1.Taint{foreign, another}, m.now().Spec.Taints)
}

// staleReader is a cache that is behind.
type staleReader struct {
	client.Reader
	node *corev1.Node
}

func (r staleReader) Get(_ context.Context, _ client.ObjectKey, into client.Object, _ ...client.GetOption) error {
	r.node.DeepCopyInto(into.(*corev1.Node))
	return nil
}

// A node's report is written when the state changes, and then not again.
func TestNoHeartbeat(t *testing.T) {
	s := newScene(t)
	m := s.member("a")
	s.operate(Options{Mode: Taint})
	s.eventually(func() bool { return m.state() == v1alpha1.AgentReady }, "the agent is Ready")
	version := func() string {
		stored := &v1alpha1.NodeEnforcement{}
		require.NoError(t, s.admin.Get(context.Background(), client.ObjectKeyFromObject(m.report), stored))
		return stored.ResourceVersion
	}
	before := version()
	for range 10 { // passes over the cluster
		node := m.now()
		node.Labels["pass"] = time.Now().Format("150405.000000000")[7:]
		require.NoError(t, s.admin.Update(t.Context(), node))
		time.Sleep(passEvery / 4)
	}
	s.never(func() bool { return version() != before }, "the report is written")
}
