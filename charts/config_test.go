package charts_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The CRDs are user data: only a folder of their own has them.
func TestDeletingConfigDefaultKeepsUserData(t *testing.T) {
	for key := range kustomize(t, "default") {
		require.NotContains(t, key, "CustomResourceDefinition/")
	}
	crds := kustomize(t, "crd")
	require.NotEmpty(t, crds)
	files, err := os.ReadDir(filepath.Join("..", "config", "crd", "bases"))
	require.NoError(t, err)
	require.Len(t, crds, len(files))
	for key := range crds {
		require.Contains(t, key, "CustomResourceDefinition/")
	}
}

// The API server takes what cleans nodes, and its namespace lets the pods in.
func TestConfigUninstallIsValid(t *testing.T) {
	objects := kustomize(t, "uninstall")
	require.Len(t, objects, 2)
	admin := releases.Admin(t)
	create(t, admin, objects["Namespace/moat-cleanup"])
	create(t, admin, objects["DaemonSet/moat-cleanup"])
	t.Cleanup(func() {
		require.NoError(t, admin.Delete(context.Background(), &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "moat-cleanup", Name: "moat-cleanup"}}))
	})
	agents := decode[appsv1.DaemonSet](t, objects, "DaemonSet/moat-cleanup")
	for name, value := range agents.Spec.Template.Labels {
		require.NotEqual(t, "agent", value, "%s: the operator would take it for an agent", name)
	}
	require.Contains(t, objects["Namespace/moat-cleanup"].text, "pod-security.kubernetes.io/enforce: privileged")
}
