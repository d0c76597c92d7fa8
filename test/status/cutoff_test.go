package status

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

const (
	// longVariable has tests run that wait for minutes.
	longVariable = "MOAT_LONG"

	// cutOffStaleWithin is the promise for an agent that is cut off from the API server
	// while its kubelet isn't (docs/api.md). The last word came before the cut.
	cutOffStaleWithin = 190100 * time.Millisecond
)

// TestACutOffAgentVouchesForNothing cuts a node's agent off from the API server without a
// sign, while its kubelet goes on to say what the agent answers. A pod that comes meanwhile
// never counts as enforced, after the promised time no policy there does, and all are
// again when the network is whole.
func TestACutOffAgentVouchesForNothing(t *testing.T) {
	if os.Getenv(longVariable) == "" {
		t.Skip(longVariable + " is not set, and this takes four minutes: run make chaos")
	}
	s := newScene(t)
	app := newApp("db")
	require.NoError(t, s.Client.Create(t.Context(), app))
	s.await(eventually, "db", metav1.ConditionTrue, v1alpha1.ReasonAllNodesEnforced, "1/1")
	node := s.Nodes[0]

	mend, cut := node.CutOff(), time.Now()
	t.Cleanup(mend)
	s.AddPod(t, node, pod("late"))
	s.await(eventually, "db", metav1.ConditionFalse, v1alpha1.ReasonProgressing, "0/1")
	stop := s.watch(func(app *v1alpha1.AppIsolation) {
		if meta.IsStatusConditionTrue(app.Status.Conditions, v1alpha1.ConditionEnforced) && time.Since(cut) < cutOffStaleWithin {
			t.Errorf("Enforced is True %s after the agent was cut off: %+v", time.Since(cut), app.Status.Enforcement)
		}
	})
	s.await(cutOffStaleWithin-time.Since(cut), "db", metav1.ConditionUnknown, v1alpha1.ReasonAgentStale, "0/1")
	t.Logf("an agent that is cut off is stale after %s", time.Since(cut))
	require.True(t, node.Agent.Running(), "nothing ends it")
	stop()

	mend()
	s.await(eventually, "db", metav1.ConditionTrue, v1alpha1.ReasonAllNodesEnforced, "1/1")
}
