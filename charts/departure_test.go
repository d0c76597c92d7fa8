package charts_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/moat-dev/moat/dataplane/departure"
)

// What an agent needs to decide at its end is there, whichever way Moat was installed and
// in whichever namespace.
func TestAgentsCanSeeMoatGo(t *testing.T) {
	out, err := helm(t, "template", "moat", chart, "--namespace", "elsewhere")
	require.NoError(t, err)
	for home, objects := range map[string]map[string]object{namespace: kustomize(t, "default"), "elsewhere": objectsOf(t, out)} {
		t.Run(home, func(t *testing.T) {
			marker := decode[corev1.ConfigMap](t, objects, "ConfigMap/moat-release")
			require.Equal(t, home, marker.Namespace)
			require.Contains(t, marker.Data["purpose"], "As long as this ConfigMap is there, Moat is installed.")

			role := decode[rbacv1.Role](t, objects, "Role/moat-agent")
			require.Equal(t, home, role.Namespace)
			require.ElementsMatch(t, []rbacv1.PolicyRule{
				{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"moat-budgets"}, Verbs: []string{"get"}},
				{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"moat-release"}, Verbs: []string{"get", "list", "watch"}},
				{APIGroups: []string{"apps"}, Resources: []string{"daemonsets"}, ResourceNames: []string{"moat-agent"}, Verbs: []string{"get"}},
			}, role.Rules)
			binding := decode[rbacv1.RoleBinding](t, objects, "RoleBinding/moat-agent")
			require.Equal(t, home, binding.Namespace)
			require.Equal(t, rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "moat-agent"}, binding.RoleRef)
			require.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: "moat-agent", Namespace: home}}, binding.Subjects)

			pod := decode[appsv1.DaemonSet](t, objects, "DaemonSet/moat-agent").Spec.Template.Spec
			const stop, clean, withdraw = 5 * time.Second, 20 * time.Second, 3 * time.Second
			longest := departure.MarkerPatience + departure.MarkerAway + stop + clean + withdraw
			require.Greater(t, time.Duration(*pod.TerminationGracePeriodSeconds)*time.Second, longest+5*time.Second, "and what the API server takes to answer")
			paths := map[string]string{}
			for _, variable := range pod.Containers[0].Env {
				if variable.ValueFrom != nil && variable.ValueFrom.FieldRef != nil {
					paths[variable.Name] = variable.ValueFrom.FieldRef.FieldPath
				}
			}
			require.Equal(t, map[string]string{"NODE_NAME": "spec.nodeName", "POD_NAME": "metadata.name", "POD_NAMESPACE": "metadata.namespace"}, paths)
			probe := pod.Containers[0].ReadinessProbe.HTTPGet
			require.Equal(t, []corev1.HTTPHeader{{Name: "Moat-Namespace", Value: home}}, probe.HTTPHeaders)
		})
	}
}
