package bench

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/test/bench/results"
)

// callKinds are the figures that must not grow with the cluster.
var callKinds = []string{
	results.LabelRestores, results.LabelRequests, results.PolicyRestores, results.PolicyRequests,
	results.ChurnRestores,
}

// requireConstantCalls compares two clusters of which one has four times the pods. On a busy
// machine a pass takes two changes together at times, which halves what one costs. What the
// agent does every five seconds makes a small difference.
func requireConstantCalls(t *testing.T, small, large *results.Scenario) {
	t.Helper()
	require.GreaterOrEqual(t, large.TotalPods(), 4*small.TotalPods())
	for _, kind := range callKinds {
		few, ok := small.Figure(kind)
		require.True(t, ok, kind)
		many, ok := large.Figure(kind)
		require.True(t, ok, kind)
		require.LessOrEqual(t, many.Value, 0.5+2*few.Value,
			"%s: %d pods and %d pods", kind, small.TotalPods(), large.TotalPods())
	}
}

// A change costs as many runs of iptables-restore and as many netlink requests in a
// cluster of four times the size.
func TestACostOfAChangeIsConstant(t *testing.T) {
	few, many := size{namespaces: 10, pods: 10, policies: 6, local: 10}, size{namespaces: 40, pods: 10, policies: 6, local: 10}
	o := &options{
		backend: iptables.NFT, samples: 5, idle: 6 * time.Second, churn: 3 * time.Second, parts: []string{partCosts, partDelays},
		scenarios: []string{custom, custom}, sizes: []size{few, many},
	}
	report := &results.Report{}
	o.measureScenarios(t, report)
	requireConstantCalls(t, &report.Scenarios[0], &report.Scenarios[1])
	for i := range report.Scenarios {
		s := &report.Scenarios[i]
		restores, _ := s.Figure(results.LabelRestores)
		// The first connection that a label forbids brings the rules that cut.
		require.LessOrEqual(t, restores.Value, 0.2, "a label is a matter of sets alone")
		restores, _ = s.Figure(results.PolicyRestores)
		require.Positive(t, restores.Value)
		require.LessOrEqual(t, restores.Value, 1.5, "a policy of IPv4 pods is one restore")
	}
}
