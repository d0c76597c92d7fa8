package isolation

import (
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

const (
	// NamePrefix makes the name of an AppIsolation's policy.
	NamePrefix = "appiso-"

	// ManagedByLabel tells people and other tools whose the policy is. It proves
	// nothing: ownership is the controller reference alone.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	// ManagedBy is its value.
	ManagedBy = "moat"
)

// Policy returns the whole policy that app asks for in w, and what app names that
// w doesn't have.
func Policy(app *v1alpha1.AppIsolation, w World) (*networkingv1.NetworkPolicy, []Problem) {
	spec, from, problems := Compile(app, w)
	controller := true
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   app.Namespace,
			Name:        NamePrefix + app.Name,
			Labels:      map[string]string{ManagedByLabel: ManagedBy},
			Annotations: map[string]string{v1alpha1.ProvenanceAnnotation: from.String()},
			// Not blockOwnerDeletion: it would need the right to set finalizers
			// where OwnerReferencesPermissionEnforcement is on, and buys nothing.
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(),
				Kind:       "AppIsolation",
				Name:       app.Name,
				UID:        app.UID,
				Controller: &controller,
			}},
		},
		Spec: spec,
	}, problems
}
