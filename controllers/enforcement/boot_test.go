package enforcement

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// A pod that is new, or that is selected by other labels than the agent saw, takes the True
// away until the agent has seen it, though the policy is in force on the node already. One
// that goes doesn't.
func TestAPodThatTheAgentHasNotSeenIsNotEnforced(t *testing.T) {
	c := newCluster(t)
	node := c.Member("one")
	c.Agent(node.Name)
	c.CreateApp()
	byHand := c.HandWritten("by-hand")
	policy := c.Programmed()
	first := c.Pod("first", node.Name)
	say := func(pods ...*corev1.Pod) {
		c.Report(node.Name, judgetest.Listing(string(policy.UID), policy.Generation), judgetest.Listing(string(byHand.UID), byHand.Generation), judgetest.Seeing(node.UID, pods...))
	}
	say(first)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
	c.ExpectPolicy(byHand, "True", "AllNodesEnforced", "1/1")

	second := c.Pod("second", node.Name)
	app := c.Expect("Enforced", "False", "Progressing", "0/1")
	require.Contains(t, meta.FindStatusCondition(app.Status.Conditions, "Enforced").Message, "hasn't confirmed yet: 1")
	c.ExpectPolicy(byHand, "False", "Progressing", "0/1")
	say(first, second)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
	c.ExpectPolicy(byHand, "True", "AllNodesEnforced", "1/1")

	first.Labels["version"] = "2"
	require.NoError(t, c.Admin.Update(t.Context(), first))
	c.Expect("Enforced", "False", "Progressing", "0/1")
	say(first, second)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	stranger := c.Pod("stranger", node.Name, func(pod *corev1.Pod) { pod.Labels["role"] = "web" })
	time.Sleep(apiservertest.Never)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
	stranger.Labels["role"] = "db"
	require.NoError(t, c.Admin.Update(t.Context(), stranger))
	c.Expect("Enforced", "False", "Progressing", "0/1")
	say(first, second, stranger)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	require.NoError(t, c.Admin.Delete(t.Context(), second))
	require.Eventually(t, func() bool { return c.App().Status.SelectedPods == 2 }, apiservertest.Eventually, apiservertest.Tick, "a pod is gone")
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
}
