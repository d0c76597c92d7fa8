package enforcement

import (
	"cmp"
	"fmt"
	"slices"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

const (
	// maxFailures and maxMessage are the bounds of the API's failures field.
	maxFailures = 10
	maxMessage  = 256

	// reasonReportTruncated is the failure of a node whose report had no room for
	// the policy: nothing proves that it is enforced there.
	reasonReportTruncated = "ReportTruncated"
)

// agentState is what is known of the agent pod of a node.
type agentState int

const (
	agentMissing agentState = iota
	agentNotReady
	agentReady
)

// node is what is known of one node that runs a selected pod.
type node struct {
	name  string
	agent agentState
	// report is the status that the node's agent wrote last; nil: none.
	report *v1alpha1.NodeEnforcementStatus
	// doubt says why the report proves nothing; empty: it may.
	doubt string
	// pods are the digests of the node's selected pods.
	pods []string
}

// nodeState orders the findings: the smallest one of any node decides the
// Enforced condition, and goes first in the list of failures.
type nodeState int

const (
	nodeFailed nodeState = iota
	nodeAgentMissing
	nodeAgentStale
	nodeProgressing
	nodeCurrent
)

// finding says whether one node enforces one policy, and where it doesn't, why.
type finding struct {
	node    string
	state   nodeState
	reason  string
	message string
}

// verdict says on which nodes one policy is enforced. Its condition has no
// observedGeneration: that is the caller's.
type verdict struct {
	summary  v1alpha1.EnforcementSummary
	failures []v1alpha1.NodeFailure
	enforced metav1.Condition
	// others are further conditions, of an AppIsolation.
	others []metav1.Condition
}

// judge says on which of nodes, the nodes that run a selected pod, the policy is
// in the kernel. It doubts: a node counts as current only where its own report
// names exactly this uid and generation and each selected pod, nothing in the report
// speaks against it, it is about this boot of this Node, and its agent is there to correct
// it. The order of nodes doesn't matter.
func judge(policy v1alpha1.PolicyReference, nodes []node) verdict {
	findings := make([]finding, 0, len(nodes))
	for _, n := range nodes {
		findings = append(findings, judgeNode(policy, n))
	}
	slices.SortFunc(findings, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.state, b.state), cmp.Compare(a.node, b.node))
	})
	summary := summarize(findings)
	return verdict{
		summary:  summary,
		failures: failures(findings),
		enforced: enforced(policy, summary, findings),
	}
}

func judgeNode(policy v1alpha1.PolicyReference, n node) finding {
	found := func(state nodeState, reason, message string) finding {
		return finding{node: n.name, state: state, reason: reason, message: message}
	}
	if n.agent == agentMissing {
		return found(nodeAgentMissing, v1alpha1.ReasonAgentMissing, "no Moat agent pod runs on the node")
	}
	if n.report == nil {
		return found(nodeAgentStale, v1alpha1.ReasonAgentStale, "the node's agent has not reported yet")
	}
	if n.doubt != "" {
		return found(nodeAgentStale, v1alpha1.ReasonAgentStale, n.doubt)
	}
	if failure, ok := failureOf(n.report, policy.UID); ok {
		return found(nodeFailed, failure.Reason, failure.Message)
	}
	if condition := impairment(n.report.Conditions); condition != nil {
		return found(nodeFailed, condition.Reason, condition.Message)
	}
	if n.agent == agentNotReady {
		return found(nodeAgentStale, v1alpha1.ReasonAgentStale, "the node's agent pod is not ready, so its report may be out of date")
	}
	generation, listed := listedGeneration(n.report, policy.UID)
	missing := unseen(n.report, n.pods)
	switch {
	case !listed && n.report.Truncated:
		return found(nodeFailed, reasonReportTruncated, fmt.Sprintf(
			"the node enforces more than %d policies and its report has no room for this one, so nothing proves that it is enforced", v1alpha1.MaxReportedPolicies))
	case !listed || generation != policy.Generation:
		return found(nodeProgressing, v1alpha1.ReasonProgressing, "")
	case missing > 0 && n.report.Truncated:
		return found(nodeFailed, reasonReportTruncated, fmt.Sprintf(
			"the node's report has no room for more than %d pods, so nothing proves that the policy is enforced for all", v1alpha1.MaxReportedPods))
	case missing > 0:
		return found(nodeProgressing, v1alpha1.ReasonProgressing, fmt.Sprintf(
			"new or relabelled pods there that its agent hasn't confirmed yet: %d", missing))
	}
	return found(nodeCurrent, "", "")
}

func failureOf(report *v1alpha1.NodeEnforcementStatus, uid types.UID) (v1alpha1.PolicyFailure, bool) {
	for _, failure := range report.Failures {
		if failure.UID == uid {
			return failure, true
		}
	}
	return v1alpha1.PolicyFailure{}, false
}

func listedGeneration(report *v1alpha1.NodeEnforcementStatus, uid types.UID) (generation int64, listed bool) {
	for _, policy := range report.Policies {
		if policy.UID == uid {
			return policy.Generation, true
		}
	}
	return 0, false
}

// impairment returns the condition that says that the node doesn't filter as
// reported, or nil. A policy that can't be read closes its own pods alone and is
// in the failures of its own uid, so that it doesn't speak of others.
func impairment(conditions []metav1.Condition) *metav1.Condition {
	synced := meta.FindStatusCondition(conditions, v1alpha1.NodeConditionDataplaneSynced)
	if synced != nil && synced.Status == metav1.ConditionFalse {
		return synced
	}
	degraded := meta.FindStatusCondition(conditions, v1alpha1.NodeConditionDegraded)
	if degraded != nil && degraded.Status == metav1.ConditionTrue && degraded.Reason != v1alpha1.NodeReasonPolicyUnreadable {
		return degraded
	}
	return nil
}

func summarize(findings []finding) v1alpha1.EnforcementSummary {
	summary := v1alpha1.EnforcementSummary{DesiredNodes: int32(len(findings))}
	for _, f := range findings {
		switch f.state {
		case nodeCurrent:
			summary.CurrentNodes++
		case nodeFailed:
			summary.FailedNodes++
		case nodeAgentMissing, nodeAgentStale:
			summary.StaleNodes++
		case nodeProgressing:
		}
	}
	summary.Summary = fmt.Sprintf("%d/%d", summary.CurrentNodes, summary.DesiredNodes)
	return summary
}

// failures expects findings in order, worst first.
func failures(findings []finding) []v1alpha1.NodeFailure {
	var failures []v1alpha1.NodeFailure
	for _, f := range findings {
		if f.state >= nodeProgressing || len(failures) == maxFailures {
			break
		}
		failures = append(failures, v1alpha1.NodeFailure{NodeName: f.node, Reason: f.reason, Message: truncate(f.message)})
	}
	return failures
}

// enforced expects findings in order, worst first.
func enforced(policy v1alpha1.PolicyReference, summary v1alpha1.EnforcementSummary, findings []finding) metav1.Condition {
	condition := metav1.Condition{Type: v1alpha1.ConditionEnforced, Status: metav1.ConditionTrue}
	if len(findings) == 0 {
		condition.Reason = v1alpha1.ReasonNoSelectedPods
		condition.Message = "no scheduled pod is selected; pods that come are isolated"
		return condition
	}
	worst := findings[0]
	affected := countState(findings, worst.state)
	switch worst.state {
	case nodeCurrent:
		condition.Reason = v1alpha1.ReasonAllNodesEnforced
		condition.Message = fmt.Sprintf("generation %d of NetworkPolicy %s is in the kernel of all %d nodes that run a selected pod", policy.Generation, policy.Name, len(findings))
		return condition
	case nodeFailed:
		condition.Status, condition.Reason = metav1.ConditionFalse, v1alpha1.ReasonNodeFailed
	case nodeProgressing:
		condition.Status, condition.Reason = metav1.ConditionFalse, v1alpha1.ReasonProgressing
		condition.Message = fmt.Sprintf("%s nodes hold generation %d of NetworkPolicy %s; waiting for %s", summary.Summary, policy.Generation, policy.Name, nameNodes(worst.node, affected))
		if worst.message != "" {
			condition.Message += ": " + worst.message
		}
		return condition
	case nodeAgentMissing, nodeAgentStale:
		condition.Status, condition.Reason = metav1.ConditionUnknown, worst.reason
	}
	condition.Message = fmt.Sprintf("%s: %s: %s", nameNodes(worst.node, affected), worst.reason, worst.message)
	return condition
}

func countState(findings []finding, state nodeState) int {
	count := 0
	for _, f := range findings {
		if f.state == state {
			count++
		}
	}
	return count
}

func nameNodes(first string, count int) string {
	if count == 1 {
		return "node " + first
	}
	return fmt.Sprintf("node %s and %d more", first, count-1)
}

// truncate cuts a message to the bound of the API, which counts characters.
func truncate(message string) string {
	if utf8.RuneCountInString(message) <= maxMessage {
		return message
	}
	return string([]rune(message)[:maxMessage-1]) + "…"
}
