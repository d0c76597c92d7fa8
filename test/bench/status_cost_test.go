package bench

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/test/bench/results"
)

// A change of a policy costs one write of the policy, two of a status and one of each
// node's report at most, on average, whether it concerns some nodes or all; and no
// status grows with the nodes.
func TestACostOfAStatusIsConstant(t *testing.T) {
	o := &statusOptions{scenario: custom, size: fleetSizes[small], samples: 3, wide: 3, falls: 3, idle: time.Second, rest: restBetween, stream: time.Second}
	r := o.newReport(t)
	f := o.measure(t, r)
	figure := func(kind string) float64 {
		found, ok := r.Figure(kind)
		require.True(t, ok, kind)
		return found.Value
	}
	// On a busy machine a node may need longer than the patience of the operator: in two of three samples.
	const late = 0.7
	for kind, policies := range map[kindOfPolicy]float64{generated: 1, handWritten: 0} {
		statuses := policies + 1 // that it is stored, and that it is enforced
		for _, kinds := range []results.ChangeKinds{results.StatusKinds[string(kind)], results.StatusWideKinds[string(kind)]} {
			require.InDelta(t, policies, figure(kinds.PolicyWrites), 0.01, kinds.PolicyWrites)
			require.GreaterOrEqual(t, figure(kinds.StatusWrites), statuses, kinds.StatusWrites)
			require.LessOrEqual(t, figure(kinds.StatusWrites), statuses+late, kinds.StatusWrites)
			require.InDelta(t, 1, figure(kinds.AgentWrites), 0.1, kinds.AgentWrites)
		}
	}
	require.EqualValues(t, o.size.nodes, figure(results.StatusWideKinds[string(generated)].Nodes))
	require.Less(t, figure(results.StatusKinds[string(generated)].Nodes), float64(o.size.nodes)/2)
	f.requireNoListOfNodes(t)
}

// requireNoListOfNodes looks at every object that the operator writes, while the
// report of each node says that something is wrong there.
func (f *fleet) requireNoListOfNodes(t *testing.T) {
	t.Helper()
	all := subject{generated, 0, 0}
	app := &v1alpha1.AppIsolation{}
	key := client.ObjectKeyFromObject(all.appIsolation())
	require.NoError(t, f.cluster.Client.Get(t.Context(), key, app))
	for node := range f.size.nodes {
		f.agents.fail(node, app.Status.Policy.UID)
	}
	require.Eventually(t, func() bool {
		require.NoError(t, f.cluster.Client.Get(t.Context(), key, app))
		return int(app.Status.Enforcement.FailedNodes) == f.size.nodes
	}, changeWithinStatus, 50*time.Millisecond, "every node failed")
	require.Len(t, app.Status.Failures, 10)

	var apps v1alpha1.AppIsolationList
	var policies v1alpha1.PolicyEnforcementList
	require.NoError(t, f.cluster.Client.List(t.Context(), &apps))
	require.NoError(t, f.cluster.Client.List(t.Context(), &policies))
	require.Len(t, apps.Items, f.size.namespaces*f.size.policies/2)
	require.Len(t, policies.Items, f.size.namespaces*f.size.policies/2)
	most := func(object any) int { return strings.Count(toJSON(t, object), "node-0") }
	for i := range apps.Items {
		require.LessOrEqual(t, most(apps.Items[i].Status), 12, apps.Items[i].Name) // ten failures, and the first one in two conditions
	}
	for i := range policies.Items {
		require.LessOrEqual(t, most(policies.Items[i].Status), 11, policies.Items[i].Name)
	}
}
