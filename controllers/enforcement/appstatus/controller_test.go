package appstatus

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
	c.CreateApp()
	app := c.Expect("Enforced", "True", "NoSelectedPods", "0/0")
	require.EqualValues(t, 0, app.Status.SelectedPods)
	c.Expect("Ready", "True", "NoSelectedPods", "0/0")

	one, two := c.NodeName("one"), c.NodeName("two")
	c.Agent(one)
	c.Report(one)
	c.Agent(two)
	c.Report(two)
	c.Pod("a", one)
	c.Pod("b", one)
	c.Pod("c", two)
	app = c.Expect("Enforced", "False", "Progressing", "0/2")
	require.EqualValues(t, 3, app.Status.SelectedPods)

	policy := c.Programmed()
	c.Holds(one, policy)
	c.Expect("Enforced", "False", "Progressing", "1/2")
	c.Holds(two, policy)
	c.Expect("Enforced", "True", "AllNodesEnforced", "2/2")
	app = c.Expect("Ready", "True", "AllNodesEnforced", "2/2")
	require.Empty(t, app.Status.Failures)
	require.Equal(t, v1alpha1.EnforcementSummary{Summary: "2/2", DesiredNodes: 2, CurrentNodes: 2}, app.Status.Enforcement)

	// The policy leaves one node's kernel.
	c.Report(two)
	c.Expect("Enforced", "False", "Progressing", "1/2")
	c.Expect("Ready", "False", "Progressing", "1/2")
}

func TestFailuresAndImpairment(t *testing.T) {
	c := newCluster(t)
	c.CreateApp()
	policy := c.Programmed()
	node := c.NodeName("one")
	c.Agent(node)
	c.Pod("a", node)
	c.Report(node, judgetest.Failing(string(policy.UID), "RestoreFailed", "line 7"))
	app := c.Expect("Enforced", "False", "NodeFailed", "0/1")
	require.Equal(t, []v1alpha1.NodeFailure{{NodeName: node, Reason: "RestoreFailed", Message: "line 7"}}, app.Status.Failures)
	require.EqualValues(t, 1, app.Status.Enforcement.FailedNodes)
	c.Holds(node, policy)
	app = c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
	require.Empty(t, app.Status.Failures)

	// A condition of the node names no policy, and concerns all of its pods'.
	c.Report(node, judgetest.Listing(string(policy.UID), policy.Generation), judgetest.Condition("Degraded", "True", "BridgeNetfilterOff", "traffic between pods of this node isn't filtered"))
	app = c.Expect("Enforced", "False", "NodeFailed", "0/1")
	require.Equal(t, "BridgeNetfilterOff", app.Status.Failures[0].Reason)
	c.Holds(node, policy)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
}

func TestAgentsComeAndGo(t *testing.T) {
	c := newCluster(t)
	c.CreateApp()
	policy := c.Programmed()
	node := c.NodeName("one")
	c.Pod("a", node)
	app := c.Expect("Enforced", "Unknown", "AgentMissing", "0/1")
	require.Equal(t, []string{node + " AgentMissing"}, names(app.Status.Failures))

	agent := c.Agent(node)
	c.Expect("Enforced", "Unknown", "AgentStale", "0/1")
	c.Holds(node, policy)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	c.SetReady(agent, corev1.ConditionFalse)
	app = c.Expect("Enforced", "Unknown", "AgentStale", "0/1")
	require.EqualValues(t, 1, app.Status.Enforcement.StaleNodes)
	c.Expect("Ready", "Unknown", "AgentStale", "0/1")
	c.SetReady(agent, corev1.ConditionTrue)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	require.NoError(t, c.Admin.Delete(t.Context(), agent))
	c.Expect("Enforced", "Unknown", "AgentMissing", "0/1")
	c.Agent(node)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	stored := &v1alpha1.NodeEnforcement{}
	stored.Name = node
	require.NoError(t, c.Admin.Delete(t.Context(), stored))
	c.Expect("Enforced", "Unknown", "AgentStale", "0/1")
}

// While Moat is uninstalled pods of the agents' DaemonSet empty their nodes: ready as
// they are, they vouch for nothing.
func TestAPodThatEmptiesItsNodeIsNoAgent(t *testing.T) {
	c := newCluster(t)
	c.CreateApp()
	node := c.NodeName("one")
	agent := c.Agent(node)
	c.Pod("a", node)
	c.Holds(node, c.Programmed())
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	require.NoError(t, c.Admin.Delete(t.Context(), agent))
	c.Agent(node, func(pod *corev1.Pod) { pod.Labels[v1alpha1.TaskLabel] = v1alpha1.TaskCleanup })
	c.Expect("Enforced", "Unknown", "AgentMissing", "0/1")
	time.Sleep(apiservertest.Never)
	c.Expect("Ready", "Unknown", "AgentMissing", "0/1")
}

func TestWhichPodsCount(t *testing.T) {
	c := newCluster(t)
	c.CreateApp()
	policy := c.Programmed()
	here, there := c.NodeName("here"), c.NodeName("there")
	c.Agent(here)
	c.Holds(here, policy)
	c.Pod("counts", here)
	c.Pod("host-network", there, func(pod *corev1.Pod) { pod.Spec.HostNetwork = true })
	c.Pod("unscheduled", "")
	c.Pod("other-label", there, func(pod *corev1.Pod) { pod.Labels["role"] = "web" })
	done := c.Pod("done", there)
	c.SetPhase(done, corev1.PodSucceeded)
	app := c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
	require.EqualValues(t, 1, app.Status.SelectedPods)

	// A label makes a pod of another node a subject, and unmakes it.
	pod := c.Pod("relabelled", there, func(pod *corev1.Pod) { pod.Labels["role"] = "web" })
	pod.Labels["role"] = "db"
	require.NoError(t, c.Admin.Update(t.Context(), pod))
	c.Expect("Enforced", "Unknown", "AgentMissing", "1/2")
	pod.Labels["role"] = "web"
	require.NoError(t, c.Admin.Update(t.Context(), pod))
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	// So does its end.
	ending := c.Pod("ending", there)
	c.Expect("Enforced", "Unknown", "AgentMissing", "1/2")
	c.SetPhase(ending, corev1.PodFailed)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	// A Terminating pod is a subject until it is gone.
	terminating := c.Pod("terminating", there, func(pod *corev1.Pod) {
		pod.Finalizers = []string{"example.com/hold"}
	})
	c.Expect("Enforced", "Unknown", "AgentMissing", "1/2")
	require.NoError(t, c.Admin.Delete(t.Context(), terminating))
	time.Sleep(apiservertest.Never)
	c.Expect("Enforced", "Unknown", "AgentMissing", "1/2")
	require.NoError(t, c.Admin.Get(t.Context(), client.ObjectKeyFromObject(terminating), terminating))
	terminating.Finalizers = nil
	require.NoError(t, c.Admin.Update(t.Context(), terminating))
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
}

func TestDisabled(t *testing.T) {
	c := newCluster(t)
	c.CreateApp()
	node := c.NodeName("one")
	c.Agent(node)
	c.Pod("a", node)
	c.Holds(node, c.Programmed())
	app := c.Expect("Ready", "True", "AllNodesEnforced", "1/1")
	app.Spec.Mode = v1alpha1.ModeDisabled
	require.NoError(t, c.Admin.Update(t.Context(), app))
	c.Expect("Ready", "False", "Disabled", "")
	app = c.Expect("Enforced", "False", "NotProgrammed", "")
	require.EqualValues(t, 1, app.Status.SelectedPods)
}

// TestStatusSettles: the two controllers stop answering each other's writes, and
// an event that changes nothing writes nothing.
func TestStatusSettles(t *testing.T) {
	c := newCluster(t)
	c.CreateApp()
	node := c.NodeName("one")
	agent := c.Agent(node)
	pod := c.Pod("a", node)
	policy := c.Programmed()
	c.Holds(node, policy)
	app := c.Expect("Ready", "True", "AllNodesEnforced", "1/1")
	time.Sleep(apiservertest.Never)

	pod.Annotations = map[string]string{"touched": "yes"}
	require.NoError(t, c.Admin.Update(t.Context(), pod))
	c.SetReady(agent, corev1.ConditionTrue)
	c.Holds(node, policy, v1alpha1.PolicyReference{UID: "another", Generation: 1})
	time.Sleep(apiservertest.Never)
	require.Equal(t, app.ResourceVersion, c.App().ResourceVersion)

	// Both writers' conditions are there: neither undid the other's.
	for _, name := range []string{"Accepted", "Programmed", "Enforced", "Ready"} {
		require.NotNil(t, meta.FindStatusCondition(app.Status.Conditions, name), name)
	}
}
