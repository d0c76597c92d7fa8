package enforcement

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// programmedNow returns the Programmed condition of the spec's present
// generation, or nil where it still speaks of an older one.
func programmedNow(app *v1alpha1.AppIsolation) *metav1.Condition {
	programmed := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionProgrammed)
	if programmed == nil || programmed.ObservedGeneration != app.Generation {
		return nil
	}
	return programmed
}

// notProgrammed is the verdict where the policy of this generation isn't stored,
// so that there is nothing to enforce.
func notProgrammed(programmed metav1.Condition) verdict {
	return verdict{enforced: metav1.Condition{
		Type:    v1alpha1.ConditionEnforced,
		Status:  metav1.ConditionFalse,
		Reason:  v1alpha1.ReasonNotProgrammed,
		Message: "there is no policy of this generation to enforce: " + programmed.Reason,
	}}
}

// notReported is the verdict where the operator doesn't ask the nodes.
func notReported() verdict {
	return verdict{enforced: metav1.Condition{
		Type:    v1alpha1.ConditionEnforced,
		Status:  metav1.ConditionUnknown,
		Reason:  v1alpha1.ReasonReportingOff,
		Message: "policies are enforced, but the operator runs with --report-network-policies=None and so doesn't say where",
	}}
}

// report writes the verdict into status, and Ready, which sums it up with what
// controllers/appisolation wrote. It leaves alone what that writes.
func (v verdict) report(generation int64, selectedPods int, status *v1alpha1.AppIsolationStatus) {
	status.SelectedPods = int32(selectedPods)
	status.Enforcement = v.summary
	status.Failures = v.failures
	for _, condition := range append(v.others, v.enforced, ready(status.Conditions, v.enforced)) {
		condition.ObservedGeneration = generation
		meta.SetStatusCondition(&status.Conditions, condition)
	}
}

// ready repeats the first of Accepted, Programmed and Enforced that isn't True,
// and Enforced where all are.
func ready(conditions []metav1.Condition, enforced metav1.Condition) metav1.Condition {
	first := enforced
	for _, name := range []string{v1alpha1.ConditionAccepted, v1alpha1.ConditionProgrammed} {
		condition := meta.FindStatusCondition(conditions, name)
		if condition != nil && condition.Status != metav1.ConditionTrue {
			first = *condition
			break
		}
	}
	return metav1.Condition{
		Type:    v1alpha1.ConditionReady,
		Status:  first.Status,
		Reason:  first.Reason,
		Message: first.Message,
	}
}

// progressing says whether nothing is wrong and some node hasn't confirmed yet.
func (v verdict) progressing() bool { return v.enforced.Reason == v1alpha1.ReasonProgressing }

// falls says whether an Enforced that is True becomes untrue.
func (v verdict) falls() bool { return v.enforced.Status != metav1.ConditionTrue }

// isEnforced says whether Enforced is True, and of that generation.
func isEnforced(conditions []metav1.Condition, generation int64) bool {
	return speaksOf(conditions, generation) && meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionEnforced)
}

// speaksOf says whether Enforced was written for a generation.
func speaksOf(conditions []metav1.Condition, generation int64) bool {
	enforced := meta.FindStatusCondition(conditions, v1alpha1.ConditionEnforced)
	return enforced != nil && enforced.ObservedGeneration == generation
}

// policyStatus is the verdict as the status of a PolicyEnforcement. The conditions
// speak of the policy's generation, and keep the time of before where they say the
// same.
func (v verdict) policyStatus(policy v1alpha1.PolicyReference, selectedPods int, before v1alpha1.PolicyEnforcementStatus) v1alpha1.PolicyEnforcementStatus {
	conditions := slices.Clone(before.Conditions)
	v.enforced.ObservedGeneration = policy.Generation
	meta.SetStatusCondition(&conditions, v.enforced)
	return v1alpha1.PolicyEnforcementStatus{
		ObservedGeneration: policy.Generation,
		PolicyUID:          policy.UID,
		SelectedPods:       int32(selectedPods),
		Enforcement:        v.summary,
		Failures:           v.failures,
		Conditions:         conditions,
	}
}
