// Package judgetest makes what tests of Enforced judge: reports of agents, and policies.
package judgetest

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// Report returns what a healthy agent reports, with the given changes.
func Report(changes ...func(*v1alpha1.NodeEnforcementStatus)) *v1alpha1.NodeEnforcementStatus {
	status := &v1alpha1.NodeEnforcementStatus{Conditions: []metav1.Condition{
		{Type: v1alpha1.NodeConditionDataplaneSynced, Status: metav1.ConditionTrue, Reason: v1alpha1.NodeReasonSynced},
		{Type: v1alpha1.NodeConditionDegraded, Status: metav1.ConditionFalse, Reason: v1alpha1.NodeReasonHealthy},
	}}
	for _, change := range changes {
		change(status)
	}
	return status
}

// Listing makes a report say that the policy is in the node's kernel.
func Listing(uid string, generation int64) func(*v1alpha1.NodeEnforcementStatus) {
	return func(status *v1alpha1.NodeEnforcementStatus) {
		status.Policies = append(status.Policies, EnforcedPolicy(uid, generation))
	}
}

// EnforcedPolicy is what a report says of a policy in the node's kernel.
func EnforcedPolicy(uid string, generation int64) v1alpha1.EnforcedPolicy {
	return v1alpha1.EnforcedPolicy{UID: types.UID(uid), Generation: generation}
}

// Failing makes a report say that the policy failed.
func Failing(uid, reason, message string) func(*v1alpha1.NodeEnforcementStatus) {
	return func(status *v1alpha1.NodeEnforcementStatus) {
		status.Failures = append(status.Failures, v1alpha1.PolicyFailure{UID: types.UID(uid), Reason: reason, Message: message})
	}
}

// Condition sets a condition of the node.
func Condition(name string, status metav1.ConditionStatus, reason, message string) func(*v1alpha1.NodeEnforcementStatus) {
	return func(s *v1alpha1.NodeEnforcementStatus) {
		meta.SetStatusCondition(&s.Conditions, metav1.Condition{Type: name, Status: status, Reason: reason, Message: message})
	}
}

// Seeing makes a report name its Node and list pods.
func Seeing(node types.UID, pods ...*corev1.Pod) func(*v1alpha1.NodeEnforcementStatus) {
	return func(status *v1alpha1.NodeEnforcementStatus) {
		status.NodeUID = node
		for _, pod := range pods {
			status.Pods = append(status.Pods, v1alpha1.PodDigest(pod.UID, pod.Labels))
		}
		slices.Sort(status.Pods)
	}
}

// Truncated makes a report say that it had no room for all.
func Truncated(status *v1alpha1.NodeEnforcementStatus) { status.Truncated = true }

// PolicySpec reads the spec of a NetworkPolicy from YAML.
func PolicySpec(t *testing.T, text string) *networkingv1.NetworkPolicySpec {
	t.Helper()
	spec := &networkingv1.NetworkPolicySpec{}
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), spec))
	return spec
}

// Policy returns a policy that selects role=db, with the rest of its spec from YAML.
func Policy(t *testing.T, name, spec string) networkingv1.NetworkPolicy {
	t.Helper()
	policy := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *PolicySpec(t, spec)}
	policy.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"role": "db"}}
	return policy
}

// Booted makes a report name the boot of its Node.
func Booted(id string) func(*v1alpha1.NodeEnforcementStatus) {
	return func(status *v1alpha1.NodeEnforcementStatus) { status.BootID = id }
}
