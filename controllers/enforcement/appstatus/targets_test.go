package appstatus

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/agents"
	"github.com/moat-dev/moat/controllers/enforcement/enforcementtest"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/controllers/enforcement/survey"
	"github.com/moat-dev/moat/controllers/enforcement/triggers"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// recordingQueue keeps what is enqueued, and when it is due.
type recordingQueue struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	names []string
}

func (q *recordingQueue) AddAfter(request reconcile.Request, after time.Duration) {
	if after == triggers.Delay {
		q.names = append(q.names, request.Name)
	}
}

// Add is for what must not wait.
func (q *recordingQueue) Add(request reconcile.Request) { q.names = append(q.names, request.Name) }

// drain returns what was enqueued since the last call, each once.
func (q *recordingQueue) drain() []string {
	slices.Sort(q.names)
	names := slices.Compact(q.names)
	q.names = nil
	return names
}

// TestOnlyAffectedAppsAreEnqueued reads from a real cache: two AppIsolations,
// one pod of each, on two nodes.
func TestOnlyAffectedAppsAreEnqueued(t *testing.T) {
	c := enforcementtest.Bare(t, &server)
	here, there := c.NodeName("here"), c.NodeName("there")
	db := c.Pod("db-0", here)
	web := c.Pod("web-0", there, func(pod *corev1.Pod) { pod.Labels = map[string]string{"role": "web"} })
	storeApp(c, "db")
	storeApp(c, "web")
	reader := c.CachedClient(c.Namespace, survey.CacheByObject(), survey.AddIndexes)
	a := triggers.Triggers{Reader: reader, AgentNamespace: apiservertest.OperatorNamespace, Targets: targets{reader: reader}}
	ctx, q := t.Context(), &recordingQueue{}
	agent := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: apiservertest.OperatorNamespace, Labels: agents.Labels()}, Spec: corev1.PodSpec{NodeName: there, HostNetwork: true}}

	pods, changed := a.PodHandler(), func(pod *corev1.Pod, change func(*corev1.Pod)) event.UpdateEvent {
		after := pod.DeepCopy()
		change(after)
		return event.UpdateEvent{ObjectOld: pod, ObjectNew: after}
	}
	pods.Create(ctx, event.CreateEvent{Object: db, IsInInitialList: true}, q)
	require.Empty(t, q.drain(), "the first list")
	pods.Create(ctx, event.CreateEvent{Object: db}, q)
	require.Equal(t, []string{"db"}, q.drain(), "a new pod")
	pods.Delete(ctx, event.DeleteEvent{Object: web}, q)
	require.Equal(t, []string{"web"}, q.drain(), "a pod that is gone")
	pods.Update(ctx, changed(db, func(pod *corev1.Pod) {
		pod.ResourceVersion, pod.Annotations = "9", map[string]string{"a": "b"}
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}), q)
	require.Empty(t, q.drain(), "nothing that matters")
	pods.Update(ctx, changed(db, func(pod *corev1.Pod) { pod.Labels = map[string]string{"role": "web"} }), q)
	require.Equal(t, []string{"db", "web"}, q.drain(), "a label: the one that selected it, and the one that does")
	pods.Update(ctx, changed(db, func(pod *corev1.Pod) { pod.Status.Phase = corev1.PodSucceeded }), q)
	require.Equal(t, []string{"db"}, q.drain(), "its end")
	pods.Update(ctx, changed(agent, func(pod *corev1.Pod) { pod.Annotations = map[string]string{"a": "b"} }), q)
	require.Empty(t, q.drain(), "an agent, nothing that matters")
	pods.Update(ctx, changed(agent, func(pod *corev1.Pod) {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}), q)
	require.Equal(t, []string{"web"}, q.drain(), "an agent: those with pods on its node")

	reports, update := a.ReportHandler(), func(before, after *v1alpha1.NodeEnforcementStatus) {
		named := func(status *v1alpha1.NodeEnforcementStatus) *v1alpha1.NodeEnforcement {
			return &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: here}, Status: *status}
		}
		a.ReportHandler().Update(ctx, event.UpdateEvent{ObjectOld: named(before), ObjectNew: named(after)}, q)
	}
	update(judgetest.Report(), judgetest.Report(judgetest.Listing("uid-web", 1), judgetest.Listing("unknown", 4)))
	require.Equal(t, []string{"web"}, q.drain(), "a policy, wherever its pods are")
	update(judgetest.Report(judgetest.Listing("uid-web", 1)), judgetest.Report(judgetest.Listing("uid-web", 1)))
	require.Empty(t, q.drain(), "the same report")
	update(judgetest.Report(), judgetest.Report(judgetest.Condition("DataplaneSynced", "False", "RestoreFailed", "why")))
	require.Equal(t, []string{"db"}, q.drain(), "a broken node: those with pods there")
	update(judgetest.Report(judgetest.Seeing("uid", db)), judgetest.Report(judgetest.Seeing("uid")))
	require.Equal(t, []string{"db"}, q.drain(), "a pod of the node")
	update(judgetest.Report(judgetest.Seeing("uid", db)), judgetest.Report(judgetest.Seeing("another", db)))
	require.Equal(t, []string{"db"}, q.drain(), "another Node")

	nodes, node := a.NodeHandler(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: there, UID: "uid"}}
	changedNode := func(change func(*corev1.Node)) {
		after := node.DeepCopy()
		change(after)
		nodes.Update(ctx, event.UpdateEvent{ObjectOld: node, ObjectNew: after}, q)
	}
	changedNode(func(node *corev1.Node) { node.Labels = map[string]string{"a": "b"} })
	require.Empty(t, q.drain(), "a Node, nothing that matters")
	changedNode(func(node *corev1.Node) { node.Status.NodeInfo.BootID = "second" })
	require.Equal(t, []string{"web"}, q.drain(), "a boot")
	changedNode(func(node *corev1.Node) { node.UID = "another" })
	require.Equal(t, []string{"web"}, q.drain(), "a Node in place of another")
	nodes.Delete(ctx, event.DeleteEvent{Object: node}, q)
	require.Equal(t, []string{"web"}, q.drain(), "a Node that is gone")
	reports.Delete(ctx, event.DeleteEvent{Object: &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: there}}}, q)
	require.Equal(t, []string{"web"}, q.drain(), "a report that is gone")
}

// storeApp stores an AppIsolation of role=NAME, whose policy is uid-NAME.
func storeApp(c *enforcementtest.Cluster, name string) {
	c.T.Helper()
	app := c.NewApp(name)
	require.NoError(c.T, c.Admin.Create(c.T.Context(), app))
	app.Status.Policy = &v1alpha1.PolicyReference{Name: "appiso-" + name, UID: types.UID("uid-" + name), Generation: 1}
	require.NoError(c.T, c.Admin.Status().Update(c.T.Context(), app))
}
