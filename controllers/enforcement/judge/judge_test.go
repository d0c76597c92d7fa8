package judge

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
)

var policy = v1alpha1.PolicyReference{Name: "appiso-db", UID: "uid-db", Generation: 2}

func TestJudgeNode(t *testing.T) {
	current := judgetest.Report(judgetest.Listing("other", 7), judgetest.Listing("uid-db", 2))
	for name, test := range map[string]struct {
		agent  AgentState
		report *v1alpha1.NodeEnforcementStatus
		state  nodeState
		reason string
	}{
		"listed":                       {AgentReady, current, nodeCurrent, ""},
		"nothing listed":               {AgentReady, judgetest.Report(), nodeProgressing, "Progressing"},
		"older generation":             {AgentReady, judgetest.Report(judgetest.Listing("uid-db", 1)), nodeProgressing, "Progressing"},
		"newer generation, drift":      {AgentReady, judgetest.Report(judgetest.Listing("uid-db", 3)), nodeProgressing, "Progressing"},
		"same generation, other uid":   {AgentReady, judgetest.Report(judgetest.Listing("other", 2)), nodeProgressing, "Progressing"},
		"no agent":                     {AgentMissing, current, nodeAgentMissing, "AgentMissing"},
		"agent not ready":              {AgentNotReady, current, nodeAgentStale, "AgentStale"},
		"no report":                    {AgentReady, nil, nodeAgentStale, "AgentStale"},
		"neither agent nor report":     {AgentMissing, nil, nodeAgentMissing, "AgentMissing"},
		"failed":                       {AgentReady, judgetest.Report(judgetest.Failing("uid-db", "RestoreFailed", "why")), nodeFailed, "RestoreFailed"},
		"failed but listed":            {AgentReady, judgetest.Report(judgetest.Listing("uid-db", 2), judgetest.Failing("uid-db", "RestoreFailed", "why")), nodeFailed, "RestoreFailed"},
		"failed and agent not ready":   {AgentNotReady, judgetest.Report(judgetest.Failing("uid-db", "RestoreFailed", "why")), nodeFailed, "RestoreFailed"},
		"failed, and the agent left":   {AgentMissing, judgetest.Report(judgetest.Failing("uid-db", "RestoreFailed", "why")), nodeAgentMissing, "AgentMissing"},
		"another policy failed":        {AgentReady, judgetest.Report(judgetest.Listing("uid-db", 2), judgetest.Failing("other", "RestoreFailed", "why")), nodeCurrent, ""},
		"not synced":                   {AgentReady, judgetest.Report(judgetest.Listing("uid-db", 2), judgetest.Condition("DataplaneSynced", "False", "RestoreFailed", "why")), nodeFailed, "RestoreFailed"},
		"no bridge netfilter":          {AgentReady, judgetest.Report(judgetest.Listing("uid-db", 2), judgetest.Condition("Degraded", "True", "BridgeNetfilterOff", "why")), nodeFailed, "BridgeNetfilterOff"},
		"kube-proxy works by IPVS":     {AgentReady, judgetest.Report(judgetest.Listing("uid-db", 2), judgetest.Condition("Degraded", "True", "ProxyModeIPVS", "why")), nodeFailed, "ProxyModeIPVS"},
		"degraded by another policy":   {AgentReady, judgetest.Report(judgetest.Listing("uid-db", 2), judgetest.Condition("Degraded", "True", "PolicyUnreadable", "why")), nodeCurrent, ""},
		"truncated, listed":            {AgentReady, judgetest.Report(judgetest.Listing("uid-db", 2), judgetest.Truncated), nodeCurrent, ""},
		"truncated, not listed":        {AgentReady, judgetest.Report(judgetest.Truncated), nodeFailed, "ReportTruncated"},
		"truncated, older is listed":   {AgentReady, judgetest.Report(judgetest.Listing("uid-db", 1), judgetest.Truncated), nodeProgressing, "Progressing"},
		"agent not ready, nothing yet": {AgentNotReady, judgetest.Report(), nodeAgentStale, "AgentStale"},
	} {
		t.Run(name, func(t *testing.T) {
			found := judgeNode(policy, Node{Name: "node-1", Agent: test.agent, Report: test.report})
			require.Equal(t, test.state, found.state)
			require.Equal(t, test.reason, found.reason)
			require.Equal(t, "node-1", found.node)
		})
	}
}

func TestJudge(t *testing.T) {
	good := func(name string) Node {
		return Node{Name: name, Agent: AgentReady, Report: judgetest.Report(judgetest.Listing("uid-db", 2))}
	}
	waiting := func(name string) Node { return Node{Name: name, Agent: AgentReady, Report: judgetest.Report()} }
	failed := Node{Name: "f", Agent: AgentReady, Report: judgetest.Report(judgetest.Failing("uid-db", "RestoreFailed", "line 3 failed"))}
	missing := Node{Name: "m", Agent: AgentMissing}
	stale := Node{Name: "s", Agent: AgentNotReady, Report: judgetest.Report(judgetest.Listing("uid-db", 2))}
	for name, test := range map[string]struct {
		nodes    []Node
		summary  v1alpha1.EnforcementSummary
		failures []string
		status   metav1.ConditionStatus
		reason   string
		message  string
	}{
		"no pods": {nil, v1alpha1.EnforcementSummary{Summary: "0/0"}, nil, "True", "NoSelectedPods", "no scheduled pod"},
		"all": {[]Node{good("a"), good("b")},
			v1alpha1.EnforcementSummary{Summary: "2/2", DesiredNodes: 2, CurrentNodes: 2}, nil, "True", "AllNodesEnforced", "all 2 nodes"},
		"one waits": {[]Node{good("a"), waiting("b")},
			v1alpha1.EnforcementSummary{Summary: "1/2", DesiredNodes: 2, CurrentNodes: 1}, nil, "False", "Progressing", "1/2 nodes hold generation 2 of NetworkPolicy appiso-db; waiting for node b"},
		"several wait": {[]Node{waiting("c"), waiting("b"), good("a")},
			v1alpha1.EnforcementSummary{Summary: "1/3", DesiredNodes: 3, CurrentNodes: 1}, nil, "False", "Progressing", "waiting for node b and 1 more"},
		"one failed": {[]Node{good("a"), failed},
			v1alpha1.EnforcementSummary{Summary: "1/2", DesiredNodes: 2, CurrentNodes: 1, FailedNodes: 1}, []string{"f"}, "False", "NodeFailed", "node f: RestoreFailed: line 3 failed"},
		"no agent": {[]Node{good("a"), missing},
			v1alpha1.EnforcementSummary{Summary: "1/2", DesiredNodes: 2, CurrentNodes: 1, StaleNodes: 1}, []string{"m"}, "Unknown", "AgentMissing", "node m: AgentMissing: no Moat agent"},
		"stale agent": {[]Node{good("a"), stale},
			v1alpha1.EnforcementSummary{Summary: "1/2", DesiredNodes: 2, CurrentNodes: 1, StaleNodes: 1}, []string{"s"}, "Unknown", "AgentStale", "node s: AgentStale"},
		"the worst decides": {[]Node{stale, missing, waiting("w"), failed, good("a")},
			v1alpha1.EnforcementSummary{Summary: "1/5", DesiredNodes: 5, CurrentNodes: 1, FailedNodes: 1, StaleNodes: 2}, []string{"f", "m", "s"}, "False", "NodeFailed", "node f: "},
		"stale outranks waiting": {[]Node{waiting("w"), stale},
			v1alpha1.EnforcementSummary{Summary: "0/2", DesiredNodes: 2, StaleNodes: 1}, []string{"s"}, "Unknown", "AgentStale", "node s: "},
	} {
		t.Run(name, func(t *testing.T) {
			result := Policy(policy, test.nodes)
			require.Equal(t, test.summary, result.Summary)
			require.Equal(t, test.status, result.Enforced.Status)
			require.Equal(t, test.reason, result.Enforced.Reason)
			require.Contains(t, result.Enforced.Message, test.message)
			var names []string
			for _, failure := range result.Failures {
				names = append(names, failure.NodeName)
			}
			require.Equal(t, test.failures, names)

			shuffled := slices.Clone(test.nodes)
			rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			require.Equal(t, result, Policy(policy, shuffled), "the order of nodes doesn't matter")
		})
	}
}

func TestFailuresAreBounded(t *testing.T) {
	var nodes []Node
	for i := range 12 {
		long := strings.Repeat("ü", 300)
		nodes = append(nodes, Node{Name: fmt.Sprintf("n%02d", i), Agent: AgentReady, Report: judgetest.Report(judgetest.Failing("uid-db", "RestoreFailed", long))})
	}
	result := Policy(policy, nodes)
	require.Len(t, result.Failures, 10)
	require.Equal(t, "n00", result.Failures[0].NodeName)
	require.Equal(t, 256, len([]rune(result.Failures[0].Message)))
	require.EqualValues(t, 12, result.Summary.FailedNodes)
	require.Contains(t, result.Enforced.Message, "node n00 and 11 more")
}

// BenchmarkJudge is one AppIsolation with pods on each of 5,000 nodes, each of
// which reports 200 policies.
func BenchmarkJudge(b *testing.B) {
	var nodes []Node
	for i := range 5000 {
		var listed []func(*v1alpha1.NodeEnforcementStatus)
		for j := range 200 {
			listed = append(listed, judgetest.Listing(fmt.Sprintf("00000000-0000-0000-0000-%012d", j), 1))
		}
		nodes = append(nodes, Node{Name: fmt.Sprint(i), Agent: AgentReady, Report: judgetest.Report(append(listed, judgetest.Listing("uid-db", 2))...)})
	}
	b.ReportAllocs()
	for b.Loop() {
		require.EqualValues(b, 5000, Policy(policy, nodes).Summary.CurrentNodes)
	}
}
