package judge

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// Verdict says on which nodes one policy is enforced.
type Verdict struct {
	// Summary counts the nodes by what was found.
	Summary v1alpha1.EnforcementSummary
	// Failures are the nodes that need repair, the worst first, and not more than the API
	// allows.
	Failures []v1alpha1.NodeFailure
	// Enforced is the condition. The caller sets its observedGeneration and its time.
	Enforced metav1.Condition
}

// NotReported is the verdict where the operator runs without reports.
func NotReported() Verdict {
	return Verdict{Enforced: metav1.Condition{
		Type:    v1alpha1.ConditionEnforced,
		Status:  metav1.ConditionUnknown,
		Reason:  v1alpha1.ReasonReportingOff,
		Message: "policies are enforced, but the operator runs with --report-network-policies=None and so doesn't say where",
	}}
}

// Progressing says whether nothing is wrong, and some node hasn't confirmed yet.
func (v Verdict) Progressing() bool { return v.Enforced.Reason == v1alpha1.ReasonProgressing }

// Falls says whether the verdict takes back an Enforced that is True.
func (v Verdict) Falls() bool { return v.Enforced.Status != metav1.ConditionTrue }
