package appisolation

import (
	"fmt"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
)

// outcome is what became of an AppIsolation's policy.
type outcome struct {
	// policy is the owned policy as it is stored; nil where there is none.
	policy *networkingv1.NetworkPolicy

	accepted, resolved, programmed metav1.Condition
}

var accepted = metav1.Condition{
	Type:    v1alpha1.ConditionAccepted,
	Status:  metav1.ConditionTrue,
	Reason:  v1alpha1.ReasonAccepted,
	Message: "the spec is meaningful",
}

func programmed(policy *networkingv1.NetworkPolicy) outcome {
	return outcome{policy: policy, accepted: accepted, programmed: metav1.Condition{
		Type:    v1alpha1.ConditionProgrammed,
		Status:  metav1.ConditionTrue,
		Reason:  v1alpha1.ReasonProgrammed,
		Message: fmt.Sprintf("NetworkPolicy %s is stored", policy.Name),
	}}
}

func notProgrammed(policy *networkingv1.NetworkPolicy, reason, message string) outcome {
	return outcome{policy: policy, accepted: accepted, programmed: metav1.Condition{
		Type:    v1alpha1.ConditionProgrammed,
		Status:  metav1.ConditionFalse,
		Reason:  reason,
		Message: message,
	}}
}

// invalid is the outcome where the API server refuses the policy, which it does
// for what the CRD's own validation can't express.
func invalid(policy *networkingv1.NetworkPolicy, err error) outcome {
	result := notProgrammed(policy, v1alpha1.ReasonInvalid, err.Error())
	result.accepted = metav1.Condition{
		Type:    v1alpha1.ConditionAccepted,
		Status:  metav1.ConditionFalse,
		Reason:  v1alpha1.ReasonInvalid,
		Message: err.Error(),
	}
	return result
}

// maxProblems is how many problems a message names.
const maxProblems = 5

// resolvedRefs has the reason of the first problem.
func resolvedRefs(problems []isolation.Problem) metav1.Condition {
	if len(problems) == 0 {
		return metav1.Condition{
			Type:    v1alpha1.ConditionResolvedRefs,
			Status:  metav1.ConditionTrue,
			Reason:  v1alpha1.ReasonResolved,
			Message: "everything that the spec names exists",
		}
	}
	var messages []string
	for _, p := range problems[:min(len(problems), maxProblems)] {
		messages = append(messages, p.Message)
	}
	text := strings.Join(messages, "; ")
	if more := len(problems) - maxProblems; more > 0 {
		text += fmt.Sprintf("; and %d more", more)
	}
	return metav1.Condition{
		Type:    v1alpha1.ConditionResolvedRefs,
		Status:  metav1.ConditionFalse,
		Reason:  problems[0].Reason,
		Message: text + "; until then such a peer allows nothing",
	}
}

// report writes the outcome for one generation into status. It leaves alone
// what controllers/enforcement writes.
func (o outcome) report(generation int64, status *v1alpha1.AppIsolationStatus) {
	status.ObservedGeneration = generation
	status.Policy = nil
	if o.policy != nil {
		status.Policy = &v1alpha1.PolicyReference{
			Name:       o.policy.Name,
			UID:        o.policy.UID,
			Generation: o.policy.Generation,
		}
	}
	for _, condition := range []metav1.Condition{o.accepted, o.resolved, o.programmed} {
		condition.ObservedGeneration = generation
		meta.SetStatusCondition(&status.Conditions, condition)
	}
}
