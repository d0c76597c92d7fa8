package charts_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// workloads are what most values change.
type workloads struct {
	operator appsv1.Deployment
	agent    appsv1.DaemonSet
	objects  map[string]object
}

func (w workloads) pods() []corev1.PodSpec {
	return []corev1.PodSpec{w.operator.Spec.Template.Spec, w.agent.Spec.Template.Spec}
}

// valueTest sets one value and checks that it arrives where it is meant to.
type valueTest struct {
	set   string // for --set-json
	check func(t *testing.T, w workloads)
}

func inAgentArgs(arg string) func(*testing.T, workloads) {
	return func(t *testing.T, w workloads) {
		require.Contains(t, w.agent.Spec.Template.Spec.Containers[0].Args, arg)
	}
}

func onEachPod(check func(*testing.T, corev1.PodSpec)) func(*testing.T, workloads) {
	return func(t *testing.T, w workloads) {
		for _, pod := range w.pods() {
			check(t, pod)
		}
	}
}

// Whoever doesn't want the agent near the runtime can still have the guard.
func TestNoNRIDirMountsNothing(t *testing.T) {
	agent := agentOf(t, render(t, "--set-json", `agent.nriDir=""`, "--set-json", `agent.podStartGuard="Always"`))
	require.ElementsMatch(t, []string{"/run/xtables.lock", "/proc/sys/net"}, hostPaths(agent))
}

// A release that keeps an older chart's values has none for this.
func TestAntiSpoofingWithoutAValue(t *testing.T) {
	agent := agentOf(t, render(t, "--set-json", `agent.antiSpoofing=null`))
	require.Contains(t, hostPaths(agent), "/run/netns")
	require.NotContains(t, strings.Join(agent.Spec.Template.Spec.Containers[0].Args, " "), "--anti-spoofing", "the agent's own default")
}

func hostPaths(agent appsv1.DaemonSet) []string {
	var paths []string
	for _, volume := range agent.Spec.Template.Spec.Volumes {
		if volume.HostPath != nil {
			paths = append(paths, volume.HostPath.Path)
		}
	}
	return paths
}

func requireMemoryLimit(t *testing.T, pod corev1.PodSpec) {
	t.Helper()
	require.Equal(t, resource.MustParse("77Mi"), pod.Containers[0].Resources.Limits[corev1.ResourceMemory])
}

func TestEachValueTakesEffect(t *testing.T) {
	for name, test := range valueTests {
		t.Run(name, func(t *testing.T) {
			objects := render(t, "--set-json", name+"="+test.set)
			test.check(t, workloads{operatorOf(t, objects), agentOf(t, objects), objects})
		})
	}
}

func operatorPolicy(t *testing.T, w workloads) networkingv1.NetworkPolicySpec {
	t.Helper()
	return decode[networkingv1.NetworkPolicy](t, w.objects, "NetworkPolicy/moat-operator").Spec
}

// A value that is added to values.yaml must be added to valueTests.
func TestEachValueIsTested(t *testing.T) {
	var values map[string]any
	readYAML(t, chart+"/values.yaml", &values)
	require.ElementsMatch(t, valueNames("", values), slices.Collect(maps.Keys(valueTests)))
}

// wholes are values that are one although they have members: what these may be called is
// Kubernetes' or the user's to say.
var wholes = map[string]bool{"resources": true, "nodeSelector": true, "excludedNodes": true}

// valueNames lists the values below a group.
func valueNames(prefix string, values map[string]any) []string {
	var names []string
	for name, value := range values {
		if group, ok := value.(map[string]any); ok && len(group) > 0 && !wholes[name] {
			names = append(names, valueNames(prefix+name+".", group)...)
		} else {
			names = append(names, prefix+name)
		}
	}
	return names
}

// Each value has a comment in values.yaml and a description in the schema.
func TestEachValueIsDescribed(t *testing.T) {
	var schema map[string]any
	readYAML(t, chart+"/values.schema.json", &schema)
	var values map[string]any
	readYAML(t, chart+"/values.yaml", &values)
	for _, name := range valueNames("", values) {
		at := schema
		for _, part := range strings.Split(name, ".") {
			at = resolve(t, schema, at)["properties"].(map[string]any)[part].(map[string]any)
		}
		at = resolve(t, schema, at)
		if at["type"] == "boolean" && strings.HasPrefix(name, "monitoring.") {
			continue // the group says what it is that is enabled
		}
		require.NotEmpty(t, at["description"], name)
	}
}

// resolve follows a reference to a definition.
func resolve(t *testing.T, schema, at map[string]any) map[string]any {
	t.Helper()
	reference, ok := at["$ref"].(string)
	if !ok {
		return at
	}
	name := strings.TrimPrefix(reference, "#/definitions/")
	require.Contains(t, schema["definitions"], name)
	return schema["definitions"].(map[string]any)[name].(map[string]any)
}

// Nothing in the schema is an object of any members, but for what Kubernetes defines.
func TestTheSchemaIsStrict(t *testing.T) {
	var schema map[string]any
	readYAML(t, chart+"/values.schema.json", &schema)
	open := map[string]bool{
		"global": true, "nodeAffinity": true, "podAffinity": true, "podAntiAffinity": true,
		"configMapKeyRef": true, "secretKeyRef": true, "fieldRef": true, "resourceFieldRef": true,
	}
	var visit func(name string, at map[string]any)
	visit = func(name string, at map[string]any) {
		if at["type"] == "object" && !open[name] {
			require.Contains(t, at, "additionalProperties", name)
			require.NotEqual(t, true, at["additionalProperties"], name)
		}
		for _, group := range []string{"properties", "definitions"} {
			members, _ := at[group].(map[string]any)
			for member, schema := range members {
				visit(member, schema.(map[string]any))
			}
		}
		if items, ok := at["items"].(map[string]any); ok {
			visit(name+"[]", items)
		}
	}
	visit("values", schema)
}
