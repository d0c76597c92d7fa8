package enforcement

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/agents"
	"github.com/moat-dev/moat/controllers/appisolation"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

var server apiservertest.Server

func TestMain(m *testing.M) {
	os.Exit(server.Run(m))
}

// cluster is a namespace with pods on nodes of its own, both controllers at work
// with the operator's rights, and a test that plays the nodes' agents.
type cluster struct {
	t         *testing.T
	admin     client.Client
	namespace string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	return newReportingCluster(t, ReportAll)
}

// newReportingCluster sees the further namespaces too.
func newReportingCluster(t *testing.T, reporting Reporting, further ...string) *cluster {
	t.Helper()
	return newClusterOf(t, reporting, time.Nanosecond, further...)
}

// newClusterOf has the controllers write a status not more often than that; zero:
// as they are shipped.
func newClusterOf(t *testing.T, reporting Reporting, writeEvery time.Duration, further ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, admin: server.Admin(t), namespace: server.Namespace(t)}
	byObject, err := appisolation.CacheByObject()
	require.NoError(t, err)
	maps.Copy(byObject, CacheByObject())
	options := cache.Options{
		ByObject:          byObject,
		DefaultNamespaces: map[string]cache.Config{c.namespace: {}, apiservertest.OperatorNamespace: {}},
	}
	for _, namespace := range further {
		options.DefaultNamespaces[namespace] = cache.Config{}
	}
	server.StartManager(t, options, func(ctx context.Context, mgr manager.Manager) error {
		if err := appisolation.Setup(ctx, mgr, appisolation.Options{StatusEvery: writeEvery}); err != nil {
			return err
		}
		return Setup(ctx, mgr, Options{AgentNamespace: apiservertest.OperatorNamespace, Reporting: reporting, writeEvery: writeEvery})
	})
	return c
}

// node makes the name of a node unique among the tests, which share a server.
func (c *cluster) node(name string) string { return c.namespace + "-" + name }

// newApp returns an AppIsolation that closes the pods of role=NAME.
func (c *cluster) newApp(name string) *v1alpha1.AppIsolation {
	return &v1alpha1.AppIsolation{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name},
		Spec: v1alpha1.AppIsolationSpec{
			Selector:   &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"role": v1alpha1.LabelValue(name)}},
			Directions: []v1alpha1.Direction{v1alpha1.DirectionIngress},
		},
	}
}

func (c *cluster) createApp() *v1alpha1.AppIsolation {
	c.t.Helper()
	app := c.newApp("db")
	require.NoError(c.t, c.admin.Create(c.t.Context(), app))
	return app
}

func (c *cluster) app() *v1alpha1.AppIsolation { return c.appNamed("db") }

func (c *cluster) appNamed(name string) *v1alpha1.AppIsolation {
	c.t.Helper()
	app := &v1alpha1.AppIsolation{}
	require.NoError(c.t, c.admin.Get(c.t.Context(), client.ObjectKey{Namespace: c.namespace, Name: name}, app))
	return app
}

// expect waits for a condition of the present generation and for the NODES
// column, and returns the AppIsolation.
func (c *cluster) expect(name string, status metav1.ConditionStatus, reason, summary string) *v1alpha1.AppIsolation {
	c.t.Helper()
	var app *v1alpha1.AppIsolation
	reached := func() bool {
		app = c.app()
		condition := meta.FindStatusCondition(app.Status.Conditions, name)
		return condition != nil && condition.ObservedGeneration == app.Generation &&
			condition.Status == status && condition.Reason == reason && app.Status.Enforcement.Summary == summary
	}
	require.Eventually(c.t, reached, apiservertest.Eventually, apiservertest.Tick,
		"%s %s %s %s", name, status, reason, summary)
	return app
}

// programmed waits until the policy of the present generation is stored.
func (c *cluster) programmed() v1alpha1.PolicyReference {
	c.t.Helper()
	var app *v1alpha1.AppIsolation
	require.Eventually(c.t, func() bool {
		app = c.app()
		condition := programmedNow(app)
		return condition != nil && condition.Status == metav1.ConditionTrue
	}, apiservertest.Eventually, apiservertest.Tick, "programmed")
	return *app.Status.Policy
}

// pod creates a running pod with the label role=db.
func (c *cluster) pod(name, node string, changes ...func(*corev1.Pod)) *corev1.Pod {
	c.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.namespace, Name: name, Labels: map[string]string{"role": "db"}},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			Containers:                    []corev1.Container{{Name: "main", Image: "image"}},
			TerminationGracePeriodSeconds: new(int64(0)),
		},
	}
	for _, change := range changes {
		change(pod)
	}
	require.NoError(c.t, c.admin.Create(c.t.Context(), pod))
	c.phase(pod, corev1.PodRunning)
	return pod
}

func (c *cluster) phase(pod *corev1.Pod, phase corev1.PodPhase) {
	c.t.Helper()
	pod.Status.Phase = phase
	require.NoError(c.t, c.admin.Status().Update(c.t.Context(), pod))
}

// agent creates a ready agent pod on the node.
func (c *cluster) agent(node string, changes ...func(*corev1.Pod)) *corev1.Pod {
	c.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: apiservertest.OperatorNamespace, Name: "agent-" + node, Labels: agents.Labels()},
		Spec: corev1.PodSpec{
			NodeName:                      node,
			HostNetwork:                   true,
			Containers:                    []corev1.Container{{Name: "agent", Image: "image"}},
			TerminationGracePeriodSeconds: new(int64(0)),
		},
	}
	for _, change := range changes {
		change(pod)
	}
	require.NoError(c.t, c.admin.Create(c.t.Context(), pod))
	c.ready(pod, corev1.ConditionTrue)
	return pod
}

func (c *cluster) ready(pod *corev1.Pod, status corev1.ConditionStatus) {
	c.t.Helper()
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	require.NoError(c.t, c.admin.Status().Update(c.t.Context(), pod))
}

// report writes the node's NodeEnforcement: healthy, with the given changes.
func (c *cluster) report(node string, changes ...func(*v1alpha1.NodeEnforcementStatus)) {
	c.t.Helper()
	stored := &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: node}}
	err := c.admin.Get(c.t.Context(), client.ObjectKeyFromObject(stored), stored)
	if client.IgnoreNotFound(err) == nil && err != nil {
		err = c.admin.Create(c.t.Context(), stored)
	}
	require.NoError(c.t, err)
	stored.Status = *judgetest.Report(changes...)
	for i := range stored.Status.Conditions {
		stored.Status.Conditions[i].LastTransitionTime = metav1.Now()
	}
	require.NoError(c.t, c.admin.Status().Update(c.t.Context(), stored))
}

// holds reports that the node has the policy in its kernel.
func (c *cluster) holds(node string, policies ...v1alpha1.PolicyReference) {
	c.t.Helper()
	c.report(node, func(status *v1alpha1.NodeEnforcementStatus) {
		for _, policy := range policies {
			status.Policies = append(status.Policies, judgetest.EnforcedPolicy(string(policy.UID), policy.Generation))
		}
	})
}

func names(failures []v1alpha1.NodeFailure) []string {
	var names []string
	for _, failure := range failures {
		names = append(names, fmt.Sprint(failure.NodeName, " ", failure.Reason))
	}
	slices.Sort(names)
	return names
}
