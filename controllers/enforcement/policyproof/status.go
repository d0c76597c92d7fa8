package policyproof

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
)

// statusOf is the verdict as the status of a PolicyEnforcement. The conditions
// speak of the policy's generation, and keep the time of before where they say the
// same.
func statusOf(v judge.Verdict, policy v1alpha1.PolicyReference, selectedPods int, before v1alpha1.PolicyEnforcementStatus) v1alpha1.PolicyEnforcementStatus {
	conditions := slices.Clone(before.Conditions)
	v.Enforced.ObservedGeneration = policy.Generation
	meta.SetStatusCondition(&conditions, v.Enforced)
	return v1alpha1.PolicyEnforcementStatus{
		ObservedGeneration: policy.Generation,
		PolicyUID:          policy.UID,
		SelectedPods:       int32(selectedPods),
		Enforcement:        v.Summary,
		Failures:           v.Failures,
		Conditions:         conditions,
	}
}

// conditionsAbout returns the conditions that speak of this policy: none, where the status is
// about an earlier policy of its name.
func conditionsAbout(policy *networkingv1.NetworkPolicy, stored *v1alpha1.PolicyEnforcement) []metav1.Condition {
	if stored.Status.PolicyUID != policy.UID {
		return nil
	}
	return stored.Status.Conditions
}
