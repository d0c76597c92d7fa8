// Package v1alpha1 holds the custom resources of Moat.
//
// An AppIsolation is written by a team and compiled to one NetworkPolicy. The one
// IsolationConfig says what the entities of AppIsolations are in this cluster. A
// NodeEnforcement is written by the agent of one node and says which policies
// that node's kernel enforces. The operator joins all of them into the status of
// the AppIsolation, and of the PolicyEnforcement of each policy that was written
// by hand.
//
// +kubebuilder:object:generate=true
// +kubebuilder:ac:generate=true
// +kubebuilder:ac:output:package="../applyconfiguration"
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

	// SchemeGroupVersion is GroupVersion by the name that the generated apply
	// configurations know it by.
	SchemeGroupVersion = GroupVersion

	// SchemeBuilder collects the functions that add this package's types to a scheme.
	SchemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme adds the types of this package to a scheme.
	AddToScheme = SchemeBuilder.AddToScheme
)

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion,
		&AppIsolation{}, &AppIsolationList{},
		&IsolationConfig{}, &IsolationConfigList{},
		&NodeEnforcement{}, &NodeEnforcementList{},
		&PolicyEnforcement{}, &PolicyEnforcementList{},
	)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
