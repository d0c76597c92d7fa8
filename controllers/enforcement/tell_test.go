package enforcement

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	eventsv1 "k8s.io/api/events/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// eventsOf returns the reasons of the namespace's events, with their types.
func (c *cluster) eventsOf() map[string]int {
	c.t.Helper()
	var list eventsv1.EventList
	require.NoError(c.t, c.admin.List(c.t.Context(), &list, client.InNamespace(c.namespace)))
	count := map[string]int{}
	for _, event := range list.Items {
		require.Equal(c.t, "AppIsolation", event.Regarding.Kind)
		count[event.Type+" "+event.Reason]++
	}
	return count
}

// TestEventsOfReady: a change of Ready is told, what stays isn't, a repeated one
// is one Event, and the steps on the way are none.
func TestEventsOfReady(t *testing.T) {
	c := newCluster(t)
	node := c.node("one")
	c.agent(node)
	c.report(node)
	c.pod("a", node)
	c.createApp()
	policy := c.programmed()
	failed := judgetest.Failing(string(policy.UID), v1alpha1.NodeReasonRestoreFailed, "line 7")
	for range 3 {
		c.report(node, failed)
		c.expect("Ready", "False", "NodeFailed", "0/1")
		c.holds(node, policy)
		c.expect("Ready", "True", "AllNodesEnforced", "1/1")
		c.report(node)
		c.expect("Ready", "False", "Progressing", "0/1")
	}
	time.Sleep(apiservertest.Never)
	require.Equal(t, map[string]int{"Warning NodeFailed": 1, "Normal AllNodesEnforced": 1}, c.eventsOf())
}
