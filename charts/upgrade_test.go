package charts_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// previous is the chart that `make demo` upgrades from.
var previous = filepath.Join("..", "hack", "demo", "previous", "moat-0.1.0.tgz")

// An upgrade that changes what Kubernetes lets nobody change fails half-way, and one
// that drops a version of a CRD makes stored objects unreadable.
func TestAnUpgradeFromThePreviousVersionIsPossible(t *testing.T) {
	out, err := helm(t, "template", "moat", previous, "--namespace", namespace)
	require.NoError(t, err)
	before, now := objectsOf(t, out), render(t)
	require.Contains(t, before["DaemonSet/moat-agent"].text, "helm.sh/chart: moat-0.1.0")
	require.NotContains(t, now["DaemonSet/moat-agent"].text, "helm.sh/chart: moat-0.1.0", "the chart has no new version")

	require.Equal(t, operatorOf(t, before).Spec.Selector, operatorOf(t, now).Spec.Selector)
	require.Equal(t, agentOf(t, before).Spec.Selector, agentOf(t, now).Spec.Selector)
	for key := range before {
		require.Contains(t, now, key, "an upgrade would remove it")
		switch kind, _, _ := strings.Cut(key, "/"); kind {
		case "ClusterRoleBinding":
			require.Equal(t, decode[rbacv1.ClusterRoleBinding](t, before, key).RoleRef, decode[rbacv1.ClusterRoleBinding](t, now, key).RoleRef)
		case "RoleBinding":
			require.Equal(t, decode[rbacv1.RoleBinding](t, before, key).RoleRef, decode[rbacv1.RoleBinding](t, now, key).RoleRef)
		case "CustomResourceDefinition":
			requireSameVersions(t, decode[apiextensionsv1.CustomResourceDefinition](t, before, key), decode[apiextensionsv1.CustomResourceDefinition](t, now, key))
		}
	}
}

func requireSameVersions(t *testing.T, before, now apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	require.Equal(t, before.Spec.Names.Plural, now.Spec.Names.Plural)
	require.Equal(t, before.Spec.Scope, now.Spec.Scope)
	served := map[string]bool{}
	for _, version := range now.Spec.Versions {
		served[version.Name] = version.Served
	}
	for _, version := range before.Spec.Versions {
		require.True(t, served[version.Name], "%s %s", now.Name, version.Name)
	}
}
