package judge

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

// AgentState is the state of the agent pod of a node. A larger one is better.
type AgentState int

const (
	// AgentMissing is the state of a node without an agent pod.
	AgentMissing AgentState = iota
	// AgentNotReady is the state of an agent pod that isn't Ready.
	AgentNotReady
	// AgentReady is the state of an agent pod that is Ready.
	AgentReady
)

// Node is what the operator has read about one node that runs a selected pod.
type Node struct {
	Name  string
	Agent AgentState
	// Report is the status that the node's agent wrote last. It is nil where the agent never
	// reported. It is read only.
	Report *v1alpha1.NodeEnforcementStatus
	// Doubt says why the report proves nothing: see DoubtOf. It is empty where it may.
	Doubt string
	// Pods are the digests of the node's selected pods, in any order: see v1alpha1.PodDigest.
	Pods []string
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

// Policy says on which nodes the policy is in the kernel. nodes are those that run a selected
// pod, each once and in any order. A node counts as current only where all of this holds:
//   - its report names exactly this uid and generation, and each selected pod;
//   - the report names no failure of the policy or of the node;
//   - the report is about this boot of this Node;
//   - the node's agent is Ready, so that it would correct the report.
func Policy(policy v1alpha1.PolicyReference, nodes []Node) Verdict {
	findings := make([]finding, 0, len(nodes))
	for _, n := range nodes {
		findings = append(findings, judgeNode(policy, n))
	}
	slices.SortFunc(findings, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.state, b.state), cmp.Compare(a.node, b.node))
	})
	summary := summarize(findings)
	return Verdict{
		Summary:  summary,
		Failures: failures(findings),
		Enforced: enforced(policy, summary, findings),
	}
}

func judgeNode(policy v1alpha1.PolicyReference, n Node) finding {
	found := func(state nodeState, reason, message string) finding {
		return finding{node: n.Name, state: state, reason: reason, message: message}
	}
	if n.Agent == AgentMissing {
		return found(nodeAgentMissing, v1alpha1.ReasonAgentMissing, "no Moat agent pod runs on the node")
	}
	if n.Report == nil {
		return found(nodeAgentStale, v1alpha1.ReasonAgentStale, "the node's agent has not reported yet")
	}
	if n.Doubt != "" {
		return found(nodeAgentStale, v1alpha1.ReasonAgentStale, n.Doubt)
	}
	if failure, ok := failureOf(n.Report, policy.UID); ok {
		return found(nodeFailed, failure.Reason, failure.Message)
	}
	if condition := impairment(n.Report.Conditions); condition != nil {
		return found(nodeFailed, condition.Reason, condition.Message)
	}
	if n.Agent == AgentNotReady {
		return found(nodeAgentStale, v1alpha1.ReasonAgentStale, "the node's agent pod is not ready, so its report may be out of date")
	}
	generation, listed := listedGeneration(n.Report, policy.UID)
	missing := unseen(n.Report, n.Pods)
	switch {
	case !listed && n.Report.Truncated:
		return found(nodeFailed, reasonReportTruncated, fmt.Sprintf(
			"the node enforces more than %d policies and its report has no room for this one, so nothing proves that it is enforced", v1alpha1.MaxReportedPolicies))
	case !listed || generation != policy.Generation:
		return found(nodeProgressing, v1alpha1.ReasonProgressing, "")
	case missing > 0 && n.Report.Truncated:
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
