package enforcement

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

var policy = v1alpha1.PolicyReference{Name: "appiso-db", UID: "uid-db", Generation: 2}

// report returns what a healthy agent reports, with the given changes.
func report(changes ...func(*v1alpha1.NodeEnforcementStatus)) *v1alpha1.NodeEnforcementStatus {
	status := &v1alpha1.NodeEnforcementStatus{Conditions: []metav1.Condition{
		{Type: v1alpha1.NodeConditionDataplaneSynced, Status: metav1.ConditionTrue, Reason: v1alpha1.NodeReasonSynced},
		{Type: v1alpha1.NodeConditionDegraded, Status: metav1.ConditionFalse, Reason: v1alpha1.NodeReasonHealthy},
	}}
	for _, change := range changes {
		change(status)
	}
	return status
}

func listing(uid string, generation int64) func(*v1alpha1.NodeEnforcementStatus) {
	return func(status *v1alpha1.NodeEnforcementStatus) {
		status.Policies = append(status.Policies, enforcedPolicy(uid, generation))
	}
}

func enforcedPolicy(uid string, generation int64) v1alpha1.EnforcedPolicy {
	return v1alpha1.EnforcedPolicy{UID: types.UID(uid), Generation: generation}
}

func failing(uid, reason, message string) func(*v1alpha1.NodeEnforcementStatus) {
	return func(status *v1alpha1.NodeEnforcementStatus) {
		status.Failures = append(status.Failures, v1alpha1.PolicyFailure{UID: types.UID(uid), Reason: reason, Message: message})
	}
}

func condition(name string, status metav1.ConditionStatus, reason, message string) func(*v1alpha1.NodeEnforcementStatus) {
	return func(s *v1alpha1.NodeEnforcementStatus) {
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: name, Status: status, Reason: reason, Message: message})
	}
}

// seeing makes a report name its Node and list pods.
func seeing(node types.UID, pods ...*corev1.Pod) func(*v1alpha1.NodeEnforcementStatus) {
	return func(status *v1alpha1.NodeEnforcementStatus) {
		status.NodeUID = node
		for _, pod := range pods {
			status.Pods = append(status.Pods, v1alpha1.PodDigest(pod.UID, pod.Labels))
		}
		slices.Sort(status.Pods)
	}
}

func truncated(status *v1alpha1.NodeEnforcementStatus) { status.Truncated = true }

func TestJudgeNode(t *testing.T) {
	current := report(listing("other", 7), listing("uid-db", 2))
	for name, test := range map[string]struct {
		agent  agentState
		report *v1alpha1.NodeEnforcementStatus
		state  nodeState
		reason string
	}{
		"listed":                       {agentReady, current, nodeCurrent, ""},
		"nothing listed":               {agentReady, report(), nodeProgressing, "Progressing"},
		"older generation":             {agentReady, report(listing("uid-db", 1)), nodeProgressing, "Progressing"},
		"newer generation, drift":      {agentReady, report(listing("uid-db", 3)), nodeProgressing, "Progressing"},
		"same generation, other uid":   {agentReady, report(listing("other", 2)), nodeProgressing, "Progressing"},
		"no agent":                     {agentMissing, current, nodeAgentMissing, "AgentMissing"},
		"agent not ready":              {agentNotReady, current, nodeAgentStale, "AgentStale"},
		"no report":                    {agentReady, nil, nodeAgentStale, "AgentStale"},
		"neither agent nor report":     {agentMissing, nil, nodeAgentMissing, "AgentMissing"},
		"failed":                       {agentReady, report(failing("uid-db", "RestoreFailed", "why")), nodeFailed, "RestoreFailed"},
		"failed but listed":            {agentReady, report(listing("uid-db", 2), failing("uid-db", "RestoreFailed", "why")), nodeFailed, "RestoreFailed"},
		"failed and agent not ready":   {agentNotReady, report(failing("uid-db", "RestoreFailed", "why")), nodeFailed, "RestoreFailed"},
		"failed, and the agent left":   {agentMissing, report(failing("uid-db", "RestoreFailed", "why")), nodeAgentMissing, "AgentMissing"},
		"another policy failed":        {agentReady, report(listing("uid-db", 2), failing("other", "RestoreFailed", "why")), nodeCurrent, ""},
		"not synced":                   {agentReady, report(listing("uid-db", 2), condition("DataplaneSynced", "False", "RestoreFailed", "why")), nodeFailed, "RestoreFailed"},
		"no bridge netfilter":          {agentReady, report(listing("uid-db", 2), condition("Degraded", "True", "BridgeNetfilterOff", "why")), nodeFailed, "BridgeNetfilterOff"},
		"kube-proxy works by IPVS":     {agentReady, report(listing("uid-db", 2), condition("Degraded", "True", "ProxyModeIPVS", "why")), nodeFailed, "ProxyModeIPVS"},
		"degraded by another policy":   {agentReady, report(listing("uid-db", 2), condition("Degraded", "True", "PolicyUnreadable", "why")), nodeCurrent, ""},
		"truncated, listed":            {agentReady, report(listing("uid-db", 2), truncated), nodeCurrent, ""},
		"truncated, not listed":        {agentReady, report(truncated), nodeFailed, "ReportTruncated"},
		"truncated, older is listed":   {agentReady, report(listing("uid-db", 1), truncated), nodeProgressing, "Progressing"},
		"agent not ready, nothing yet": {agentNotReady, report(), nodeAgentStale, "AgentStale"},
	} {
		t.Run(name, func(t *testing.T) {
			found := judgeNode(policy, node{name: "node-1", agent: test.agent, report: test.report})
			require.Equal(t, test.state, found.state)
			require.Equal(t, test.reason, found.reason)
			require.Equal(t, "node-1", found.node)
		})
	}
}

func TestJudge(t *testing.T) {
	good := func(name string) node {
		return node{name: name, agent: agentReady, report: report(listing("uid-db", 2))}
	}
	waiting := func(name string) node { return node{name: name, agent: agentReady, report: report()} }
	failed := node{name: "f", agent: agentReady, report: report(failing("uid-db", "RestoreFailed", "line 3 failed"))}
	missing := node{name: "m", agent: agentMissing}
	stale := node{name: "s", agent: agentNotReady, report: report(listing("uid-db", 2))}
	for name, test := range map[string]struct {
		nodes    []node
		summary  v1alpha1.EnforcementSummary
		failures []string
		status   metav1.ConditionStatus
		reason   string
		message  string
	}{
		"no pods": {nil, v1alpha1.EnforcementSummary{Summary: "0/0"}, nil, "True", "NoSelectedPods", "no scheduled pod"},
		"all": {[]node{good("a"), good("b")},
			v1alpha1.EnforcementSummary{Summary: "2/2", DesiredNodes: 2, CurrentNodes: 2}, nil, "True", "AllNodesEnforced", "all 2 nodes"},
		"one waits": {[]node{good("a"), waiting("b")},
			v1alpha1.EnforcementSummary{Summary: "1/2", DesiredNodes: 2, CurrentNodes: 1}, nil, "False", "Progressing", "1/2 nodes hold generation 2 of NetworkPolicy appiso-db; waiting for node b"},
		"several wait": {[]node{waiting("c"), waiting("b"), good("a")},
			v1alpha1.EnforcementSummary{Summary: "1/3", DesiredNodes: 3, CurrentNodes: 1}, nil, "False", "Progressing", "waiting for node b and 1 more"},
		"one failed": {[]node{good("a"), failed},
			v1alpha1.EnforcementSummary{Summary: "1/2", DesiredNodes: 2, CurrentNodes: 1, FailedNodes: 1}, []string{"f"}, "False", "NodeFailed", "node f: RestoreFailed: line 3 failed"},
		"no agent": {[]node{good("a"), missing},
			v1alpha1.EnforcementSummary{Summary: "1/2", DesiredNodes: 2, CurrentNodes: 1, StaleNodes: 1}, []string{"m"}, "Unknown", "AgentMissing", "node m: AgentMissing: no Moat agent"},
		"stale agent": {[]node{good("a"), stale},
			v1alpha1.EnforcementSummary{Summary: "1/2", DesiredNodes: 2, CurrentNodes: 1, StaleNodes: 1}, []string{"s"}, "Unknown", "AgentStale", "node s: AgentStale"},
		"the worst decides": {[]node{stale, missing, waiting("w"), failed, good("a")},
			v1alpha1.EnforcementSummary{Summary: "1/5", DesiredNodes: 5, CurrentNodes: 1, FailedNodes: 1, StaleNodes: 2}, []string{"f", "m", "s"}, "False", "NodeFailed", "node f: "},
		"stale outranks waiting": {[]node{waiting("w"), stale},
			v1alpha1.EnforcementSummary{Summary: "0/2", DesiredNodes: 2, StaleNodes: 1}, []string{"s"}, "Unknown", "AgentStale", "node s: "},
	} {
		t.Run(name, func(t *testing.T) {
			result := judge(policy, test.nodes)
			require.Equal(t, test.summary, result.summary)
			require.Equal(t, test.status, result.enforced.Status)
			require.Equal(t, test.reason, result.enforced.Reason)
			require.Contains(t, result.enforced.Message, test.message)
			var names []string
			for _, failure := range result.failures {
				names = append(names, failure.NodeName)
			}
			require.Equal(t, test.failures, names)

			shuffled := slices.Clone(test.nodes)
			rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
			require.Equal(t, result, judge(policy, shuffled), "the order of nodes doesn't matter")
		})
	}
}

func TestFailuresAreBounded(t *testing.T) {
	var nodes []node
	for i := range 12 {
		long := strings.Repeat("ü", 300)
		nodes = append(nodes, node{name: fmt.Sprintf("n%02d", i), agent: agentReady, report: report(failing("uid-db", "RestoreFailed", long))})
	}
	result := judge(policy, nodes)
	require.Len(t, result.failures, 10)
	require.Equal(t, "n00", result.failures[0].NodeName)
	require.Equal(t, 256, len([]rune(result.failures[0].Message)))
	require.EqualValues(t, 12, result.summary.FailedNodes)
	require.Contains(t, result.enforced.Message, "node n00 and 11 more")
}

func TestReady(t *testing.T) {
	enforced := metav1.Condition{Type: "Enforced", Status: "True", Reason: "AllNodesEnforced", Message: "all"}
	accepted := metav1.Condition{Type: "Accepted", Status: "True", Reason: "Accepted"}
	programmed := metav1.Condition{Type: "Programmed", Status: "True", Reason: "Programmed"}
	not := func(condition metav1.Condition, status metav1.ConditionStatus, reason string) metav1.Condition {
		condition.Status, condition.Reason = status, reason
		return condition
	}
	for name, test := range map[string]struct {
		accepted, programmed, enforced metav1.Condition
		status                         metav1.ConditionStatus
		reason                         string
	}{
		"all hold":         {accepted, programmed, enforced, "True", "AllNodesEnforced"},
		"not accepted":     {not(accepted, "False", "Invalid"), not(programmed, "False", "ApplyFailed"), not(enforced, "False", "NotProgrammed"), "False", "Invalid"},
		"not programmed":   {accepted, not(programmed, "False", "Disabled"), not(enforced, "False", "NotProgrammed"), "False", "Disabled"},
		"not enforced":     {accepted, programmed, not(enforced, "False", "Progressing"), "False", "Progressing"},
		"nobody can tell":  {accepted, programmed, not(enforced, "Unknown", "AgentMissing"), "Unknown", "AgentMissing"},
		"nothing selected": {accepted, programmed, not(enforced, "True", "NoSelectedPods"), "True", "NoSelectedPods"},
	} {
		t.Run(name, func(t *testing.T) {
			condition := ready([]metav1.Condition{test.programmed, test.accepted}, test.enforced)
			require.Equal(t, "Ready", condition.Type)
			require.Equal(t, test.status, condition.Status)
			require.Equal(t, test.reason, condition.Reason)
		})
	}
}

// BenchmarkJudge is one AppIsolation with pods on each of 5,000 nodes, each of
// which reports 200 policies.
func BenchmarkJudge(b *testing.B) {
	var nodes []node
	for i := range 5000 {
		var listed []func(*v1alpha1.NodeEnforcementStatus)
		for j := range 200 {
			listed = append(listed, listing(fmt.Sprintf("00000000-0000-0000-0000-%012d", j), 1))
		}
		nodes = append(nodes, node{name: fmt.Sprint(i), agent: agentReady, report: report(append(listed, listing("uid-db", 2))...)})
	}
	b.ReportAllocs()
	for b.Loop() {
		require.EqualValues(b, 5000, judge(policy, nodes).summary.CurrentNodes)
	}
}
