// Package charts_test renders the chart with the real Helm and checks what
// comes out. The helm binary is taken from MOAT_HELM, or else from PATH.
package charts_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/cmd/moat/selftest"
)

const (
	chart     = "moat"
	namespace = "moat-system"
)

// helmPath finds Helm. A chart that nobody rendered is not tested, so that its
// absence fails the test, except in short mode.
func helmPath(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("short mode: the chart is not rendered")
	}
	name := os.Getenv("MOAT_HELM")
	if name == "" {
		name = "helm"
	}
	path, err := exec.LookPath(name)
	require.NoError(t, err, "helm is needed: install it, or set MOAT_HELM to the file that `hack/cluster.sh build --assets helm` leaves in the folder it prints")
	return path
}

// helm runs Helm and returns its standard output, or its error text as an error.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var stdout, stderr strings.Builder
	cmd := exec.Command(helmPath(t), args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", &helmError{text: stderr.String()}
	}
	return stdout.String(), nil
}

type helmError struct{ text string }

func (e *helmError) Error() string { return e.text }

func template(t *testing.T, args ...string) (string, error) {
	t.Helper()
	return helm(t, append([]string{"template", "moat", chart, "--namespace", namespace}, args...)...)
}

// object is one rendered manifest.
type object struct {
	kind, name string
	text       string
}

// render templates the chart and returns its objects as "Kind/name".
func render(t *testing.T, args ...string) map[string]object {
	t.Helper()
	out, err := template(t, args...)
	require.NoError(t, err)
	return objectsOf(t, out)
}

// objectsOf takes YAML documents apart.
func objectsOf(t *testing.T, out string) map[string]object {
	t.Helper()
	objects := map[string]object{}
	for _, text := range strings.Split(out, "\n---\n") {
		var head struct {
			Kind     string `json:"kind"`
			Metadata struct {
				Name string `json:"name"`
			} `json:"metadata"`
		}
		require.NoError(t, yaml.Unmarshal([]byte(text), &head))
		if head.Kind == "" {
			continue // what Helm prints before the first object
		}
		key := head.Kind + "/" + head.Metadata.Name
		require.NotContains(t, objects, key, "rendered twice")
		objects[key] = object{head.Kind, head.Metadata.Name, text}
	}
	return objects
}

// decode fails on a field that the type doesn't have.
func decode[T any](t *testing.T, objects map[string]object, key string) T {
	t.Helper()
	require.Contains(t, objects, key)
	var into T
	require.NoError(t, yaml.UnmarshalStrict([]byte(objects[key].text), &into), "decoding %s", key)
	return into
}

func operatorOf(t *testing.T, objects map[string]object) appsv1.Deployment {
	t.Helper()
	return decode[appsv1.Deployment](t, objects, "Deployment/moat-operator")
}

func agentOf(t *testing.T, objects map[string]object) appsv1.DaemonSet {
	t.Helper()
	return decode[appsv1.DaemonSet](t, objects, "DaemonSet/moat-agent")
}

func TestLint(t *testing.T) {
	_, err := helm(t, "lint", "--strict", chart)
	require.NoError(t, err)
}

func TestDefaultsRenderEveryObjectAndNoMore(t *testing.T) {
	objects := render(t)
	var keys []string
	for key := range objects {
		keys = append(keys, key)
	}
	require.ElementsMatch(t, keys, []string{
		"CustomResourceDefinition/appisolations.isolation.moat.dev",
		"CustomResourceDefinition/isolationconfigs.isolation.moat.dev",
		"CustomResourceDefinition/nodeenforcements.isolation.moat.dev",
		"CustomResourceDefinition/policyenforcements.isolation.moat.dev",
		"ServiceAccount/moat-operator", "ServiceAccount/moat-agent",
		"ClusterRole/moat-operator", "ClusterRole/moat-agent",
		"ClusterRoleBinding/moat-operator", "ClusterRoleBinding/moat-agent",
		"Role/moat-operator-leader-election", "RoleBinding/moat-operator-leader-election",
		"Role/moat-agent", "RoleBinding/moat-agent", "ConfigMap/moat-release", "ConfigMap/moat-budgets",
		"Role/moat-operator-release", "RoleBinding/moat-operator-release",
		"ClusterRole/moat-operator-taints", "ClusterRoleBinding/moat-operator-taints",
		"ClusterRole/moat-view", "ClusterRole/moat-edit", "ClusterRole/moat-admin",
		"Deployment/moat-operator", "PodDisruptionBudget/moat-operator", "DaemonSet/moat-agent",
		// The hooks of helm test.
		"ServiceAccount/moat-test", "Role/moat-test", "RoleBinding/moat-test", "Pod/moat-test",
		// The hook of helm uninstall, and what judges it.
		"ConfigMap/moat-removal", "ValidatingAdmissionPolicy/moat-removal", "ValidatingAdmissionPolicyBinding/moat-removal",
		"ValidatingAdmissionPolicy/moat-agent-events", "ValidatingAdmissionPolicyBinding/moat-agent-events",
		"ValidatingAdmissionPolicy/moat-agent-reports", "ValidatingAdmissionPolicyBinding/moat-agent-reports",
		"PriorityLevelConfiguration/moat-agent-reports", "FlowSchema/moat-agent-reports",
		"ValidatingAdmissionPolicy/moat-operator-policies", "ValidatingAdmissionPolicyBinding/moat-operator-policies",
		"ValidatingAdmissionPolicy/moat-operator-nodes", "ValidatingAdmissionPolicyBinding/moat-operator-nodes",
	})
	for _, component := range []string{"operator", "agent"} {
		account := decode[corev1.ServiceAccount](t, objects, "ServiceAccount/moat-"+component)
		require.Equal(t, namespace, account.Namespace)
		binding := decode[rbacv1.ClusterRoleBinding](t, objects, "ClusterRoleBinding/moat-"+component)
		require.Equal(t, "moat-"+component, binding.RoleRef.Name)
		require.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: "moat-" + component, Namespace: namespace}}, binding.Subjects)
	}
}

func TestRolesAreThoseOfConfig(t *testing.T) {
	objects := render(t)
	for _, name := range []string{"operator", "agent", "view", "edit", "admin"} {
		var generated rbacv1.ClusterRole
		readYAML(t, filepath.Join("..", "config", "rbac", name+"_role.yaml"), &generated)
		require.NotEmpty(t, generated.Rules)
		rendered := decode[rbacv1.ClusterRole](t, objects, "ClusterRole/moat-"+name)
		require.Equal(t, generated.Rules, rendered.Rules)
		if generated.Labels != nil {
			require.Subset(t, rendered.Labels, generated.Labels, "what Kubernetes aggregates it by")
		}
	}

	for name, file := range map[string]string{"leader-election": "leader_election_role.yaml", "release": "operator_release_role.yaml"} {
		var generated rbacv1.Role
		readYAML(t, filepath.Join("..", "config", "rbac", file), &generated)
		require.NotEmpty(t, generated.Rules)
		rendered := decode[rbacv1.Role](t, objects, "Role/moat-operator-"+name)
		require.Equal(t, generated.Rules, rendered.Rules)
		require.Equal(t, namespace, rendered.Namespace)
		binding := decode[rbacv1.RoleBinding](t, objects, "RoleBinding/moat-operator-"+name)
		require.Equal(t, rendered.Name, binding.RoleRef.Name)
	}
	for _, right := range decode[rbacv1.ClusterRole](t, objects, "ClusterRole/moat-operator-taints").Rules {
		require.Equal(t, rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"patch"}}, right)
	}
}

func TestCRDsAreThoseOfConfig(t *testing.T) {
	objects := render(t)
	files, err := filepath.Glob(filepath.Join("..", "config", "crd", "bases", "*.yaml"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		var generated map[string]any
		readYAML(t, file, &generated)
		name := generated["metadata"].(map[string]any)["name"].(string)
		rendered := decode[map[string]any](t, objects, "CustomResourceDefinition/"+name)
		require.Equal(t, generated["spec"], rendered["spec"], name)

		annotations := rendered["metadata"].(map[string]any)["annotations"]
		require.Equal(t, "keep", annotations.(map[string]any)["helm.sh/resource-policy"], "an uninstall must not delete the users' objects")
	}
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, into))
}

func TestAgentHasTwoCapabilitiesAndNoMorePrivilege(t *testing.T) {
	spec := agentOf(t, render(t)).Spec.Template.Spec
	require.True(t, spec.HostNetwork)
	require.False(t, spec.HostPID)
	require.False(t, spec.HostIPC)
	require.Empty(t, spec.InitContainers)
	require.Len(t, spec.Containers, 1)

	security := spec.Containers[0].SecurityContext
	require.False(t, *security.Privileged)
	require.False(t, *security.AllowPrivilegeEscalation)
	require.True(t, *security.ReadOnlyRootFilesystem)
	require.Equal(t, []corev1.Capability{"ALL"}, security.Capabilities.Drop)
	require.Equal(t, []corev1.Capability{"NET_ADMIN", "NET_RAW"}, security.Capabilities.Add)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, spec.SecurityContext.SeccompProfile.Type)

	var paths []string
	for _, volume := range spec.Volumes {
		paths = append(paths, volume.HostPath.Path)
	}
	require.ElementsMatch(t, []string{"/run/xtables.lock", "/proc/sys/net", "/var/run/nri", "/run/netns"}, paths)
}

// requireRestricted expects what the Pod Security Standard "restricted" asks for.
func requireRestricted(t *testing.T, spec corev1.PodSpec) {
	t.Helper()
	require.False(t, spec.HostNetwork || spec.HostPID || spec.HostIPC)
	require.Empty(t, spec.Volumes)
	require.True(t, *spec.SecurityContext.RunAsNonRoot)
	require.NotZero(t, *spec.SecurityContext.RunAsUser)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, spec.SecurityContext.SeccompProfile.Type)
	require.Empty(t, spec.SecurityContext.Sysctls)

	for _, container := range append(spec.InitContainers, spec.Containers...) {
		require.Equal(t, &corev1.SecurityContext{
			AllowPrivilegeEscalation: new(false),
			ReadOnlyRootFilesystem:   new(true),
			Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
		}, container.SecurityContext, container.Name)
		for _, port := range container.Ports {
			require.Zero(t, port.HostPort)
		}
	}
}

func TestOperatorIsUnprivileged(t *testing.T) {
	requireRestricted(t, operatorOf(t, render(t)).Spec.Template.Spec)
}

func TestOperatorsSpread(t *testing.T) {
	var keys []string
	operator := operatorOf(t, render(t))
	for _, constraint := range operator.Spec.Template.Spec.TopologySpreadConstraints {
		keys = append(keys, constraint.TopologyKey)
		require.Equal(t, operator.Spec.Selector, constraint.LabelSelector)
	}
	require.Equal(t, []string{corev1.LabelTopologyZone, corev1.LabelHostname}, keys)
}

// helm test runs with few rights, in this namespace alone, and takes them away again.
func TestTheTestHookIsRestricted(t *testing.T) {
	objects := render(t, "--set-json", `image.pullSecrets=[{"name":"registry"}]`)
	pod := decode[corev1.Pod](t, objects, "Pod/moat-test")
	requireRestricted(t, pod.Spec)
	require.Equal(t, corev1.RestartPolicyNever, pod.Spec.RestartPolicy)
	require.Equal(t, []corev1.LocalObjectReference{{Name: "registry"}}, pod.Spec.ImagePullSecrets)
	require.Equal(t, operatorOf(t, objects).Spec.Template.Spec.Containers[0].Image, pod.Spec.Containers[0].Image)
	require.Equal(t, selftest.ClientValue, pod.Labels[selftest.ClientLabel])
	require.NotEqual(t, "agent", pod.Labels["app.kubernetes.io/component"], "the operator would take it for an agent")

	role := decode[rbacv1.Role](t, objects, "Role/moat-test")
	require.Equal(t, namespace, role.Namespace)
	require.Equal(t, []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"get", "create"}},
		{APIGroups: []string{"isolation.moat.dev"}, Resources: []string{"appisolations"}, Verbs: []string{"get", "create", "delete"}},
		{APIGroups: []string{"rbac.authorization.k8s.io"}, Resources: []string{"rolebindings"}, ResourceNames: []string{pod.Name}, Verbs: []string{"delete"}},
	}, role.Rules)
	for _, key := range []string{"ServiceAccount/moat-test", "Role/moat-test", "RoleBinding/moat-test", "Pod/moat-test"} {
		annotations := decode[metav1.PartialObjectMetadata](t, map[string]object{key: metadataOf(t, objects, key)}, key).Annotations
		require.Equal(t, "test", annotations["helm.sh/hook"], key)
		require.Equal(t, "before-hook-creation,hook-succeeded", annotations["helm.sh/hook-delete-policy"], key)
	}
}

// metadataOf leaves of an object only what all kinds have.
func metadataOf(t *testing.T, objects map[string]object, key string) object {
	t.Helper()
	require.Contains(t, objects, key)
	var all map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(objects[key].text), &all))
	text, err := yaml.Marshal(map[string]any{"metadata": all["metadata"]})
	require.NoError(t, err)
	return object{text: string(text)}
}

// The operator knows the agents' pods by these labels.
func TestAgentPodsAreLabelled(t *testing.T) {
	agent := agentOf(t, render(t))
	labels := agent.Spec.Template.Labels
	require.Equal(t, "moat", labels["app.kubernetes.io/name"])
	require.Equal(t, "agent", labels["app.kubernetes.io/component"])
	require.Equal(t, v1alpha1.TaskEnforce, labels[v1alpha1.TaskLabel], "what takes an uninstall back sets it again")
	require.Subset(t, labels, agent.Spec.Selector.MatchLabels)
}

func TestDisruptionBudgetOnlyForSeveralOperators(t *testing.T) {
	const key = "PodDisruptionBudget/moat-operator"
	require.NotContains(t, render(t, "--set", "operator.replicas=1"), key)

	objects := render(t)
	require.EqualValues(t, 2, *operatorOf(t, objects).Spec.Replicas)
	budget := decode[policyv1.PodDisruptionBudget](t, objects, key)
	require.Equal(t, 1, budget.Spec.MaxUnavailable.IntValue())
	require.Equal(t, policyv1.AlwaysAllow, *budget.Spec.UnhealthyPodEvictionPolicy)
	require.Subset(t, operatorOf(t, objects).Spec.Template.Labels, budget.Spec.Selector.MatchLabels)
}
