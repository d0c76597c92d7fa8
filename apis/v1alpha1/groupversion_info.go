// Package v1alpha1 holds the custom resources of Moat.
//
// An AppIsolation is written by a team and compiled to one NetworkPolicy. A
// NodeEnforcement is written by the agent of one node and says which policies
// that node's kernel enforces. The operator joins both into the status of the
// AppIsolation.
//
// +kubebuilder:object:generate=true
// +groupName=isolation.moat.dev
package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the group and version of every type in this package.
	GroupVersion = schema.GroupVersion{Group: "isolation.moat.dev", Version: "v1alpha1"}

	// SchemeBuilder collects the functions that add this package's types to a scheme.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme adds the types of this package to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&AppIsolation{}, &AppIsolationList{},
		&NodeEnforcement{}, &NodeEnforcementList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
