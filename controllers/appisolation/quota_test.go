package appisolation

import (
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// The quota of docs/operations.md bounds the policies and the AppIsolations of a namespace.
// The test plays the controller that counts what is there.
func TestTheQuotaBoundsATenantsPolicies(t *testing.T) {
	admin, namespace := server.Admin(t), server.Namespace(t)
	text, err := os.ReadFile("../../config/samples/quota/tenant.yaml")
	require.NoError(t, err)
	quota := &corev1.ResourceQuota{}
	require.NoError(t, yaml.UnmarshalStrict(text, quota))
	quota.Namespace = namespace
	require.NoError(t, admin.Create(t.Context(), quota))
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: corev1.ResourceList{}}
	for name, hard := range quota.Spec.Hard {
		quota.Status.Used[name] = *resource.NewQuantity(hard.Value()-1, resource.DecimalSI)
	}
	require.NoError(t, admin.Status().Update(t.Context(), quota))

	for kind, object := range map[string]func(name string) client.Object{
		"networkpolicies.networking.k8s.io": func(name string) client.Object {
			return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		},
		"appisolations.isolation.moat.dev": func(name string) client.Object {
			return &v1alpha1.AppIsolation{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
				Spec:       v1alpha1.AppIsolationSpec{Selector: &v1alpha1.LabelSelector{}, Directions: []v1alpha1.Direction{v1alpha1.DirectionIngress}},
			}
		},
	} {
		require.NoError(t, admin.Create(t.Context(), object("last")), kind)
		err := admin.Create(t.Context(), object("beyond"))
		require.True(t, apierrors.IsForbidden(err), "%s: %v", kind, err)
		require.ErrorContains(t, err, fmt.Sprintf("exceeded quota: policies, requested: count/%s=1", kind))
	}
}
