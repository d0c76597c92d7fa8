package judge

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// AppOf returns the name of the AppIsolation that the policy was generated for. generated is
// false for a policy that was written by hand.
func AppOf(policy *networkingv1.NetworkPolicy) (name string, generated bool) {
	owner := metav1.GetControllerOf(policy)
	if owner == nil || owner.Kind != "AppIsolation" {
		return "", false
	}
	version, err := schema.ParseGroupVersion(owner.APIVersion)
	return owner.Name, err == nil && version.Group == v1alpha1.GroupVersion.Group
}

// SelectorOf parses a selector. One that can't be read selects nothing: an AppIsolation with
// such a selector passed no validation and has no policy, and the agents report a policy with
// one.
func SelectorOf(selector *metav1.LabelSelector) labels.Selector {
	parsed, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return labels.Nothing()
	}
	return parsed
}
