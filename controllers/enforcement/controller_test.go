package enforcement

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

func TestNodeByNode(t *testing.T) {
	c := newCluster(t)
	c.createApp()
	app := c.expect("Enforced", "True", "NoSelectedPods", "0/0")
	require.EqualValues(t, 0, app.Status.SelectedPods)
	c.expect("Ready", "True", "NoSelectedPods", "0/0")

	one, two := c.node("one"), c.node("two")
	c.agent(one)
	c.report(one)
	c.agent(two)
	c.report(two)
	c.pod("a", one)
	c.pod("b", one)
	c.pod("c", two)
	app = c.expect("Enforced", "False", "Progressing", "0/2")
	require.EqualValues(t, 3, app.Status.SelectedPods)

	policy := c.programmed()
	c.holds(one, policy)
	c.expect("Enforced", "False", "Progressing", "1/2")
	c.holds(two, policy)
	c.expect("Enforced", "True", "AllNodesEnforced", "2/2")
	app = c.expect("Ready", "True", "AllNodesEnforced", "2/2")
	require.Empty(t, app.Status.Failures)
	require.Equal(t, v1alpha1.EnforcementSummary{Summary: "2/2", DesiredNodes: 2, CurrentNodes: 2}, app.Status.Enforcement)

	// The policy leaves one node's kernel.
	c.report(two)
	c.expect("Enforced", "False", "Progressing", "1/2")
	c.expect("Ready", "False", "Progressing", "1/2")
}

func TestFailuresAndImpairment(t *testing.T) {
	c := newCluster(t)
	c.createApp()
	policy := c.programmed()
	node := c.node("one")
	c.agent(node)
	c.pod("a", node)
	c.report(node, judgetest.Failing(string(policy.UID), "RestoreFailed", "line 7"))
	app := c.expect("Enforced", "False", "NodeFailed", "0/1")
	require.Equal(t, []v1alpha1.NodeFailure{{NodeName: node, Reason: "RestoreFailed", Message: "line 7"}}, app.Status.Failures)
	require.EqualValues(t, 1, app.Status.Enforcement.FailedNodes)
	c.holds(node, policy)
	app = c.expect("Enforced", "True", "AllNodesEnforced", "1/1")
	require.Empty(t, app.Status.Failures)

	// A condition of the node names no policy, and concerns all of its pods'.
	c.report(node, judgetest.Listing(string(policy.UID), policy.Generation), judgetest.Condition("Degraded", "True", "BridgeNetfilterOff", "traffic between pods of this node isn't filtered"))
	app = c.expect("Enforced", "False", "NodeFailed", "0/1")
	require.Equal(t, "BridgeNetfilterOff", app.Status.Failures[0].Reason)
	c.holds(node, policy)
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")
}

func TestAgentsComeAndGo(t *testing.T) {
	c := newCluster(t)
	c.createApp()
	policy := c.programmed()
	node := c.node("one")
	c.pod("a", node)
	app := c.expect("Enforced", "Unknown", "AgentMissing", "0/1")
	require.Equal(t, []string{node + " AgentMissing"}, names(app.Status.Failures))

	agent := c.agent(node)
	c.expect("Enforced", "Unknown", "AgentStale", "0/1")
	c.holds(node, policy)
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")

	c.ready(agent, corev1.ConditionFalse)
	app = c.expect("Enforced", "Unknown", "AgentStale", "0/1")
	require.EqualValues(t, 1, app.Status.Enforcement.StaleNodes)
	c.expect("Ready", "Unknown", "AgentStale", "0/1")
	c.ready(agent, corev1.ConditionTrue)
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")

	require.NoError(t, c.admin.Delete(t.Context(), agent))
	c.expect("Enforced", "Unknown", "AgentMissing", "0/1")
	c.agent(node)
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")

	stored := &v1alpha1.NodeEnforcement{}
	stored.Name = node
	require.NoError(t, c.admin.Delete(t.Context(), stored))
	c.expect("Enforced", "Unknown", "AgentStale", "0/1")
}

// While Moat is uninstalled pods of the agents' DaemonSet empty their nodes: ready as
// they are, they vouch for nothing.
func TestAPodThatEmptiesItsNodeIsNoAgent(t *testing.T) {
	c := newCluster(t)
	c.createApp()
	node := c.node("one")
	agent := c.agent(node)
	c.pod("a", node)
	c.holds(node, c.programmed())
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")

	require.NoError(t, c.admin.Delete(t.Context(), agent))
	c.agent(node, func(pod *corev1.Pod) { pod.Labels[v1alpha1.TaskLabel] = v1alpha1.TaskCleanup })
	c.expect("Enforced", "Unknown", "AgentMissing", "0/1")
	time.Sleep(apiservertest.Never)
	c.expect("Ready", "Unknown", "AgentMissing", "0/1")
}

func TestWhichPodsCount(t *testing.T) {
	c := newCluster(t)
	c.createApp()
	policy := c.programmed()
	here, there := c.node("here"), c.node("there")
	c.agent(here)
	c.holds(here, policy)
	c.pod("counts", here)
	c.pod("host-network", there, func(pod *corev1.Pod) { pod.Spec.HostNetwork = true })
	c.pod("unscheduled", "")
	c.pod("other-label", there, func(pod *corev1.Pod) { pod.Labels["role"] = "web" })
	done := c.pod("done", there)
	c.phase(done, corev1.PodSucceeded)
	app := c.expect("Enforced", "True", "AllNodesEnforced", "1/1")
	require.EqualValues(t, 1, app.Status.SelectedPods)

	// A label makes a pod of another node a subject, and unmakes it.
	pod := c.pod("relabelled", there, func(pod *corev1.Pod) { pod.Labels["role"] = "web" })
	pod.Labels["role"] = "db"
	require.NoError(t, c.admin.Update(t.Context(), pod))
	c.expect("Enforced", "Unknown", "AgentMissing", "1/2")
	pod.Labels["role"] = "web"
	require.NoError(t, c.admin.Update(t.Context(), pod))
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")

	// So does its end.
	ending := c.pod("ending", there)
	c.expect("Enforced", "Unknown", "AgentMissing", "1/2")
	c.phase(ending, corev1.PodFailed)
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")

	// A Terminating pod is a subject until it is gone.
	terminating := c.pod("terminating", there, func(pod *corev1.Pod) {
		pod.Finalizers = []string{"example.com/hold"}
	})
	c.expect("Enforced", "Unknown", "AgentMissing", "1/2")
	require.NoError(t, c.admin.Delete(t.Context(), terminating))
	time.Sleep(apiservertest.Never)
	c.expect("Enforced", "Unknown", "AgentMissing", "1/2")
	require.NoError(t, c.admin.Get(t.Context(), client.ObjectKeyFromObject(terminating), terminating))
	terminating.Finalizers = nil
	require.NoError(t, c.admin.Update(t.Context(), terminating))
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")
}

func TestDisabled(t *testing.T) {
	c := newCluster(t)
	c.createApp()
	node := c.node("one")
	c.agent(node)
	c.pod("a", node)
	c.holds(node, c.programmed())
	app := c.expect("Ready", "True", "AllNodesEnforced", "1/1")
	app.Spec.Mode = v1alpha1.ModeDisabled
	require.NoError(t, c.admin.Update(t.Context(), app))
	c.expect("Ready", "False", "Disabled", "")
	app = c.expect("Enforced", "False", "NotProgrammed", "")
	require.EqualValues(t, 1, app.Status.SelectedPods)
}

// TestStatusSettles: neither controller answers the other's writes for ever, and
// an event that changes nothing writes nothing.
func TestStatusSettles(t *testing.T) {
	c := newCluster(t)
	c.createApp()
	node := c.node("one")
	agent := c.agent(node)
	pod := c.pod("a", node)
	policy := c.programmed()
	c.holds(node, policy)
	app := c.expect("Ready", "True", "AllNodesEnforced", "1/1")
	time.Sleep(apiservertest.Never)

	pod.Annotations = map[string]string{"touched": "yes"}
	require.NoError(t, c.admin.Update(t.Context(), pod))
	c.ready(agent, corev1.ConditionTrue)
	c.holds(node, policy, v1alpha1.PolicyReference{UID: "another", Generation: 1})
	time.Sleep(apiservertest.Never)
	require.Equal(t, app.ResourceVersion, c.app().ResourceVersion)

	// Both writers' conditions are there: neither undid the other's.
	for _, name := range []string{"Accepted", "Programmed", "Enforced", "Ready"} {
		require.NotNil(t, meta.FindStatusCondition(app.Status.Conditions, name), name)
	}
}
