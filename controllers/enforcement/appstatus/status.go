package appstatus

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
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
func notProgrammed(programmed metav1.Condition) judge.Verdict {
	return judge.Verdict{Enforced: metav1.Condition{
		Type:    v1alpha1.ConditionEnforced,
		Status:  metav1.ConditionFalse,
		Reason:  v1alpha1.ReasonNotProgrammed,
		Message: "there is no policy of this generation to enforce: " + programmed.Reason,
	}}
}

// fill writes the verdict and the other conditions into status, and Ready, which sums it up with what
// controllers/appisolation wrote. It leaves alone what that writes.
func fill(status *v1alpha1.AppIsolationStatus, generation int64, selectedPods int, v judge.Verdict, others []metav1.Condition) {
	status.SelectedPods = int32(selectedPods)
	status.Enforcement = v.Summary
	status.Failures = v.Failures
	for _, condition := range append(others, v.Enforced, ready(status.Conditions, v.Enforced)) {
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
