package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// PolicyEnforcement says where one hand-written NetworkPolicy is enforced. It has
// the policy's name, is owned by it, and is written by the operator alone. Not
// an annotation on the policy: every agent watches policies.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=polenf,categories=isolation
// +kubebuilder:printcolumn:name="Enforced",type=string,JSONPath=`.status.conditions[?(@.type=="Enforced")].status`
// +kubebuilder:printcolumn:name="Pods",type=integer,JSONPath=`.status.selectedPods`
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.status.enforcement.summary`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Enforced")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PolicyEnforcement struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// status is what the nodes report of the policy.
	// +optional
	Status PolicyEnforcementStatus `json:"status,omitzero"`
}

// PolicyEnforcementStatus is what the nodes report of one policy.
type PolicyEnforcementStatus struct {
	// observedGeneration is the generation of the NetworkPolicy that this status
	// speaks of, and so do the conditions.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// policyUID is the metadata.uid of that NetworkPolicy.
	// +optional
	PolicyUID types.UID `json:"policyUID,omitempty"`

	// selectedPods is the number of pods that the policy selects and that are
	// scheduled, have not ended and are not hostNetwork.
	// +optional
	SelectedPods int32 `json:"selectedPods"`

	// enforcement counts nodes.
	// +optional
	Enforcement EnforcementSummary `json:"enforcement,omitzero"`

	// failures names at most ten nodes that don't enforce the policy, and why.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	Failures []NodeFailure `json:"failures,omitempty"`

	// conditions has Enforced.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// PolicyEnforcementList is a list of PolicyEnforcement.
//
// +kubebuilder:object:root=true
type PolicyEnforcementList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PolicyEnforcement `json:"items"`
}
