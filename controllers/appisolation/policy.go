package appisolation

import (
	"context"
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
)

// fieldManager is the one name under which Moat writes policies.
const fieldManager = client.FieldOwner("moat")

// owns says whether policy is the one that Moat made for app. The uid tells an
// AppIsolation from an earlier one of the same name.
func owns(app *v1alpha1.AppIsolation, policy *networkingv1.NetworkPolicy) bool {
	return metav1.IsControlledBy(policy, app)
}

// upToDate says whether live holds all that desired asks for and nothing that
// would change what is enforced or said of it. Labels and annotations of others may stay.
func upToDate(live, desired *networkingv1.NetworkPolicy) bool {
	return live.Labels[isolation.ManagedByLabel] == isolation.ManagedBy &&
		live.Annotations[v1alpha1.ProvenanceAnnotation] == desired.Annotations[v1alpha1.ProvenanceAnnotation] &&
		equality.Semantic.DeepEqual(live.Spec, desired.Spec)
}

// create stores desired, and fails with AlreadyExists where an object of that
// name exists. Server-side apply can't promise that: it would take over a
// foreign policy that appeared since the last read.
func create(ctx context.Context, writer client.Client, desired *networkingv1.NetworkPolicy) error {
	return writer.Create(ctx, desired, fieldManager)
}

// repair makes live, which app owns, what desired says, and returns it in
// desired. It fails with Conflict where live is no longer the stored object.
func repair(ctx context.Context, writer client.Client, live, desired *networkingv1.NetworkPolicy) error {
	configuration, err := applyConfiguration(live, desired)
	if err != nil {
		return err
	}
	err = writer.Apply(ctx, client.ApplyConfigurationFromUnstructured(configuration), fieldManager, client.ForceOwnership)
	if err != nil {
		return err
	}
	return runtime.DefaultUnstructuredConverter.FromUnstructured(configuration.Object, desired)
}

// applyConfiguration writes every field of the spec, empty or not. Server-side apply keeps a
// field that the configuration leaves out, so that an egress rule of another writer would stay.
func applyConfiguration(live, desired *networkingv1.NetworkPolicy) (*unstructured.Unstructured, error) {
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(desired)
	if err != nil {
		return nil, fmt.Errorf("converting NetworkPolicy %s: %w", client.ObjectKeyFromObject(desired), err)
	}
	configuration := &unstructured.Unstructured{Object: object}
	configuration.SetGroupVersionKind(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"))
	// With these the API server refuses the write where the policy has been replaced or has
	// another owner since it was read.
	configuration.SetUID(live.UID)
	configuration.SetResourceVersion(live.ResourceVersion)
	spec := object["spec"].(map[string]any)
	for _, rules := range []string{"ingress", "egress"} {
		if _, found := spec[rules]; !found {
			spec[rules] = []any{}
		}
	}
	return configuration, nil
}

// remove deletes exactly the object that live was read from.
func remove(ctx context.Context, writer client.Client, live *networkingv1.NetworkPolicy) error {
	err := writer.Delete(ctx, live, client.Preconditions{UID: &live.UID, ResourceVersion: &live.ResourceVersion})
	return client.IgnoreNotFound(err)
}

// isStale is true of the errors that mean: what was read has changed since.
func isStale(err error) bool {
	return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) || apierrors.IsNotFound(err)
}
