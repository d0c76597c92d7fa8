package charts_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// userRoles are what Kubernetes adds to its own roles of these names, each of which has
// those before it: this API server has no controller that does so.
var userRoles = []string{"view", "edit", "admin"}

// userWith returns a client with the roles up to one, in a namespace, or "" for all.
func userWith(t *testing.T, role, namespace string) client.Client {
	t.Helper()
	name := strings.ToLower(t.Name()) + "-" + role + "-" + namespace
	subjects := []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}}
	for _, granted := range userRoles {
		metadata := metav1.ObjectMeta{Name: name + "-" + granted, Namespace: namespace}
		reference := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "moat-" + granted}
		var binding client.Object = &rbacv1.RoleBinding{ObjectMeta: metadata, RoleRef: reference, Subjects: subjects}
		if namespace == "" {
			binding = &rbacv1.ClusterRoleBinding{ObjectMeta: metadata, RoleRef: reference, Subjects: subjects}
		}
		require.NoError(t, server.Admin(t).Create(t.Context(), binding))
		if granted == role {
			break
		}
	}
	return apiservertest.ClientOf(t, server.User(t, name, "system:authenticated"))
}

func requireForbidden(t *testing.T, err error) {
	t.Helper()
	require.True(t, apierrors.IsForbidden(err), "%v", err)
}

func TestUserRoles(t *testing.T) {
	objects := render(t)
	for _, role := range userRoles {
		create(t, server.Admin(t), objects["ClusterRole/moat-"+role])
	}
	namespace := server.Namespace(t)
	app := func() *v1alpha1.AppIsolation {
		return &v1alpha1.AppIsolation{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "app-"},
			Spec:       v1alpha1.AppIsolationSpec{Selector: &v1alpha1.LabelSelector{}, Directions: []v1alpha1.Direction{v1alpha1.DirectionIngress}},
		}
	}
	config := func() *v1alpha1.IsolationConfig {
		return &v1alpha1.IsolationConfig{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.IsolationConfigName}}
	}
	ctx, here := t.Context(), client.InNamespace(namespace)

	viewer := userWith(t, "view", namespace)
	require.NoError(t, viewer.List(ctx, &v1alpha1.AppIsolationList{}, here))
	require.NoError(t, viewer.List(ctx, &v1alpha1.PolicyEnforcementList{}, here))
	requireForbidden(t, viewer.List(ctx, &v1alpha1.NodeEnforcementList{}))
	requireForbidden(t, viewer.Create(ctx, app()))

	editor, made := userWith(t, "edit", namespace), app()
	require.NoError(t, editor.Create(ctx, made))
	requireForbidden(t, editor.Status().Update(ctx, made))
	require.NoError(t, editor.Delete(ctx, made))
	requireForbidden(t, editor.Create(ctx, &v1alpha1.PolicyEnforcement{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "a"}}))
	requireForbidden(t, editor.Create(ctx, config()))

	// An admin of one namespace has no say in what is the cluster's.
	requireForbidden(t, userWith(t, "admin", namespace).Create(ctx, config()))
	admin := userWith(t, "admin", "")
	require.NoError(t, admin.Create(ctx, config()))
	require.NoError(t, admin.List(ctx, &v1alpha1.NodeEnforcementList{}))
	requireForbidden(t, admin.Create(ctx, report("none")))
	require.NoError(t, admin.Delete(ctx, config()))
}
