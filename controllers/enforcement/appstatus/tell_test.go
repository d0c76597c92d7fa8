package appstatus

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/enforcementtest"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// eventsOf returns the reasons of the namespace's events, with their types.
func eventsOf(c *enforcementtest.Cluster) map[string]int {
	c.T.Helper()
	var list eventsv1.EventList
	require.NoError(c.T, c.Admin.List(c.T.Context(), &list, client.InNamespace(c.Namespace)))
	count := map[string]int{}
	for _, event := range list.Items {
		require.Equal(c.T, "AppIsolation", event.Regarding.Kind)
		count[event.Type+" "+event.Reason]++
	}
	return count
}

// TestEventsOfReady: a change of Ready is told, what stays isn't, a repeated one
// is one Event, and the steps on the way are none.
func TestEventsOfReady(t *testing.T) {
	c := newCluster(t)
	node := c.NodeName("one")
	c.Agent(node)
	c.Report(node)
	c.Pod("a", node)
	c.CreateApp()
	policy := c.Programmed()
	failed := judgetest.Failing(string(policy.UID), v1alpha1.NodeReasonRestoreFailed, "line 7")
	for range 3 {
		c.Report(node, failed)
		c.Expect("Ready", "False", "NodeFailed", "0/1")
		c.Holds(node, policy)
		c.Expect("Ready", "True", "AllNodesEnforced", "1/1")
		c.Report(node)
		c.Expect("Ready", "False", "Progressing", "0/1")
	}
	time.Sleep(apiservertest.Never)
	require.Equal(t, map[string]int{"Warning NodeFailed": 1, "Normal AllNodesEnforced": 1}, eventsOf(c))
}
