package appstatus

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// A report from before a boot, or of an earlier Node of that name, proves nothing, from when
// the Node says so until the agent has reported again.
func TestAReportOfBeforeABootProvesNothing(t *testing.T) {
	c := newCluster(t)
	node := c.Member("one")
	c.Agent(node.Name)
	c.CreateApp()
	policy := c.Programmed()
	pod := c.Pod("a", node.Name)
	say := func(boot string) {
		c.Report(node.Name, judgetest.Listing(string(policy.UID), policy.Generation), judgetest.Seeing(node.UID, pod), judgetest.Booted(boot))
	}
	say("first")
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	c.Boot(node, "second")
	app := c.Expect("Enforced", "Unknown", "AgentStale", "0/1")
	require.Contains(t, app.Status.Failures[0].Message, "before its last boot")
	say("second")
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	require.NoError(t, c.Admin.Delete(t.Context(), node))
	c.Expect("Enforced", "Unknown", "AgentStale", "0/1")
	node = &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}
	require.NoError(t, c.Admin.Create(t.Context(), node))
	c.Boot(node, "second")
	require.Eventually(t, func() bool {
		failures := c.App().Status.Failures
		return len(failures) == 1 && failures[0].Message == "the node's report is about an earlier Node of this name"
	}, apiservertest.Eventually, apiservertest.Tick, "the machine may be another one")
	say("second")
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
}

// fallsWithin is the promise for an event that changes which pods are selected, on a quiet
// cluster.
const fallsWithin = 100 * time.Millisecond

// With the controllers as they are shipped, neither what gathers events nor what keeps writes
// apart keeps an untrue True in a status.
func TestEnforcedFallsAtOnce(t *testing.T) {
	const apps = 12
	c := newClusterOf(t, 0)
	node := c.Member("one")
	c.Agent(node.Name)
	var pods []*corev1.Pod
	for i := range apps {
		name := fmt.Sprint("app-", i)
		require.NoError(t, c.Admin.Create(t.Context(), c.NewApp(name)))
		pods = append(pods, c.Pod(name+"-0", node.Name, func(pod *corev1.Pod) { pod.Labels["role"] = name }))
	}
	// One request for all: a client has to wait between many.
	list := func() []v1alpha1.AppIsolation {
		var list v1alpha1.AppIsolationList
		require.NoError(t, c.Admin.List(t.Context(), &list, client.InNamespace(c.Namespace)))
		return list.Items
	}
	all := func(is func(*v1alpha1.AppIsolation) bool) func() bool {
		return func() bool {
			return !slices.ContainsFunc(list(), func(app v1alpha1.AppIsolation) bool { return !is(&app) })
		}
	}
	say := func() {
		changes := []func(*v1alpha1.NodeEnforcementStatus){judgetest.Seeing(node.UID, pods...)}
		for _, app := range list() {
			changes = append(changes, judgetest.Listing(string(app.Status.Policy.UID), app.Status.Policy.Generation))
		}
		c.Report(node.Name, changes...)
	}
	enforced := all(func(app *v1alpha1.AppIsolation) bool {
		return meta.IsStatusConditionTrue(app.Status.Conditions, v1alpha1.ConditionEnforced)
	})
	require.Eventually(t, all(func(app *v1alpha1.AppIsolation) bool { return app.Status.Policy != nil }), apiservertest.Eventually, apiservertest.Tick, "policies")
	say()
	require.Eventually(t, enforced, apiservertest.Eventually, apiservertest.Tick, "all are in force")

	var took []time.Duration
	falls := func(name string, event func()) {
		watcher, err := client.NewWithWatch(server.AdminConfig(t), client.Options{Scheme: apiservertest.NewScheme()})
		require.NoError(t, err)
		stream, err := watcher.Watch(t.Context(), &v1alpha1.AppIsolationList{}, client.InNamespace(c.Namespace), client.MatchingFields{"metadata.name": name})
		require.NoError(t, err)
		defer stream.Stop()
		<-stream.ResultChan() // as it is
		start := time.Now()
		event()
		for {
			app := (<-stream.ResultChan()).Object.(*v1alpha1.AppIsolation)
			if !meta.IsStatusConditionTrue(app.Status.Conditions, v1alpha1.ConditionEnforced) {
				took = append(took, time.Since(start))
				return
			}
		}
	}
	for i := range apps {
		name := fmt.Sprint("app-", i)
		falls(name, func() {
			pods = append(pods, c.Pod(name+"-1", node.Name, func(pod *corev1.Pod) { pod.Labels["role"] = name }))
		})
	}
	byPod := slices.Clone(took)
	took = nil
	for range 3 { // right after the write that says True
		say()
		require.Eventually(t, enforced, apiservertest.Eventually, apiservertest.Tick, "all are in force again")
		falls("app-0", func() {
			pods[0].Labels["version"] += "2"
			require.NoError(t, c.Admin.Update(t.Context(), pods[0]))
		})
	}
	for event, took := range map[string][]time.Duration{"a new pod": byPod, "a label": took} {
		slices.Sort(took)
		t.Logf("Enforced fell by %s after %s at the median, and %s at most", event, took[len(took)/2], took[len(took)-1])
		require.Less(t, took[len(took)/2], fallsWithin, "%v", took)
	}
}
