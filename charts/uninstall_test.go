package charts_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// It is made before anything is removed, goes at once, and grants nothing.
func TestTheRemovalIsAskedByAHook(t *testing.T) {
	objects := render(t)
	hook := hookOf(t, objects["ConfigMap/moat-removal"])
	require.Equal(t, "pre-delete", hook["helm.sh/hook"])
	require.Equal(t, "before-hook-creation,hook-succeeded", hook["helm.sh/hook-delete-policy"])
	policy := decode[admissionv1.ValidatingAdmissionPolicy](t, objects, "ValidatingAdmissionPolicy/"+removalPolicy).Spec
	require.Equal(t, admissionv1.Ignore, *policy.FailurePolicy, "a broken check must not keep Moat installed")
	binding := decode[admissionv1.ValidatingAdmissionPolicyBinding](t, objects, "ValidatingAdmissionPolicyBinding/"+removalPolicy).Spec
	require.Equal(t, admissionv1.AllowAction, *binding.ParamRef.ParameterNotFoundAction, "an install whose agents never ran")
}

// hookOf returns the annotations of an object.
func hookOf(t *testing.T, o object) map[string]string {
	t.Helper()
	var stored metav1.PartialObjectMetadata
	require.NoError(t, yaml.Unmarshal([]byte(o.text), &stored), o.name)
	return stored.Annotations
}

// reading are the verbs that change nothing.
var reading = []string{"get", "list", "watch"}

// What Helm makes as a hook is rendered by others as an ordinary object ("helm template |
// kubectl apply", kustomize, kapp): so no hook may take anything down.
func TestNoHookMayTakeAnythingDown(t *testing.T) {
	for name, args := range map[string][]string{"defaults": nil, "everything": {"--values", filepath.Join("testdata", "everything.yaml")}} {
		t.Run(name, func(t *testing.T) {
			objects, roles := render(t, args...), 0
			for key, o := range objects {
				hook := hookOf(t, o)["helm.sh/hook"]
				if hook == "" {
					continue
				}
				switch o.kind {
				case "Role", "ClusterRole":
					roles++
					requireReads(t, key, hook, decode[rbacv1.ClusterRole](t, objects, key).Rules)
				case "RoleBinding", "ClusterRoleBinding":
					role := decode[rbacv1.ClusterRoleBinding](t, objects, key).RoleRef
					require.NotEmpty(t, hookOf(t, objects[role.Kind+"/"+role.Name])["helm.sh/hook"], "%s gives a hook the rights of another", key)
				}
			}
			require.Equal(t, 1, roles, "the one of the test")
		})
	}
}

// requireReads lets no hook write what Moat is made of. The test alone makes pods, writes
// its AppIsolations, and gives up its own rights, by their name.
func requireReads(t *testing.T, key, hook string, rules []rbacv1.PolicyRule) {
	t.Helper()
	require.NotEmpty(t, rules, key)
	own := map[string][]string{"pods": {"create"}, "appisolations": {"create", "delete"}}
	for _, rule := range rules {
		for _, resource := range rule.Resources {
			may := reading
			if hook == "test" {
				may = append(slices.Clone(reading), own[resource]...)
			}
			if hook == "test" && slices.Equal(rule.ResourceNames, []string{"moat-test"}) && resource == "rolebindings" {
				may = []string{"delete"}
			}
			require.Subset(t, may, rule.Verbs, "%s: %s", key, resource)
		}
	}
}

func create(t *testing.T, admin client.Client, o object) {
	t.Helper()
	stored := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal([]byte(o.text), &stored.Object))
	require.NoError(t, admin.Create(t.Context(), stored), o.kind)
}
