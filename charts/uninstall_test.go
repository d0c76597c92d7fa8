package charts_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/apiservertest"
	"github.com/moat-dev/moat/controllers/uninstall"
)

// uninstallHooks are what exists only while Helm uninstalls.
var uninstallHooks = []string{"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Job"}

// All of it is made before anything is removed, the rights before the Job, and goes
// when it has succeeded.
func TestUninstallIsAHook(t *testing.T) {
	objects := render(t)
	for _, kind := range uninstallHooks {
		var hook metav1.PartialObjectMetadata
		require.NoError(t, yaml.Unmarshal([]byte(objects[kind+"/moat-uninstall"].text), &hook), kind)
		require.Equal(t, "pre-delete", hook.Annotations["helm.sh/hook"], kind)
		require.Equal(t, "before-hook-creation,hook-succeeded", hook.Annotations["helm.sh/hook-delete-policy"], kind)
		require.Equal(t, kind != "Job", hook.Annotations["helm.sh/hook-weight"] == "-1", kind)
	}
}

func TestUninstallIsUnprivileged(t *testing.T) {
	pod := decode[batchv1.Job](t, render(t), "Job/moat-uninstall").Spec.Template.Spec
	require.False(t, pod.HostNetwork)
	require.Empty(t, pod.Volumes)
	require.True(t, *pod.SecurityContext.RunAsNonRoot)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
	security := pod.Containers[0].SecurityContext
	require.False(t, *security.AllowPrivilegeEscalation)
	require.True(t, *security.ReadOnlyRootFilesystem)
	require.Equal(t, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, security.Capabilities)
}

// The Job's program gets along with the rights that the chart gives it, with the
// DaemonSet of the chart, and with a node that isn't done.
func TestUninstallNeedsNoOtherRights(t *testing.T) {
	admin, objects := server.Admin(t), render(t)
	for _, kind := range []string{"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} {
		create(t, admin, objects[kind+"/moat-uninstall"])
	}
	create(t, admin, objects["DaemonSet/moat-agent"])
	agents := agentOf(t, objects)
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "uninstalled"}}
	require.NoError(t, admin.Create(t.Context(), node))
	report := &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: node.Name}}
	require.NoError(t, apiservertest.ClientOf(t, server.Agent(t, node.Name)).Create(t.Context(), report))

	account := server.User(t, "system:serviceaccount:"+namespace+":moat-uninstall", "system:serviceaccounts", "system:authenticated")
	var out strings.Builder
	uninstaller := uninstall.Uninstaller{Client: apiservertest.ClientOf(t, account), Namespace: namespace, Timeout: 2 * time.Second, Out: &out}
	status := func(clean int32) {
		require.NoError(t, admin.Get(t.Context(), client.ObjectKeyFromObject(&agents), &agents))
		agents.Status = appsv1.DaemonSetStatus{ObservedGeneration: 2, DesiredNumberScheduled: 1, CurrentNumberScheduled: 1, UpdatedNumberScheduled: 1, NumberAvailable: clean}
		require.NoError(t, admin.Status().Update(t.Context(), &agents))
	}
	status(0)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "moat-agent-x", Labels: map[string]string{v1alpha1.TaskLabel: v1alpha1.TaskCleanup},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(&agents, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))}},
		Spec: corev1.PodSpec{NodeName: node.Name, Containers: []corev1.Container{{Name: "agent", Image: "none"}}},
	}
	require.NoError(t, admin.Create(t.Context(), pod))
	err := uninstaller.Run(t.Context())
	require.ErrorContains(t, err, "0 of 1 nodes are clean")
	require.ErrorContains(t, err, "node uninstalled: pod moat-agent-x: it hasn't removed Moat's rules yet")
	require.NotContains(t, err.Error(), "forbidden")

	status(1)
	require.NoError(t, uninstaller.Run(t.Context()))
	require.Contains(t, out.String(), "1 of 1 nodes are clean\nnothing of Moat is left on any node\n")
	require.Error(t, admin.Get(t.Context(), client.ObjectKeyFromObject(report), report), "the report is gone")
}

func create(t *testing.T, admin client.Client, o object) {
	t.Helper()
	stored := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal([]byte(o.text), &stored.Object))
	require.NoError(t, admin.Create(t.Context(), stored), o.kind)
}
