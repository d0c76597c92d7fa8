package charts_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

var valueTests = map[string]valueTest{
	"image.repository": {`"example.com/moat"`, onEachPod(func(t *testing.T, pod corev1.PodSpec) {
		require.True(t, strings.HasPrefix(pod.Containers[0].Image, "example.com/moat:v"), pod.Containers[0].Image)
	})},
	"image.tag": {`"dev"`, onEachPod(func(t *testing.T, pod corev1.PodSpec) {
		require.Equal(t, "ghcr.io/moat-dev/moat:dev", pod.Containers[0].Image)
	})},
	"image.digest": {`"` + digest + `"`, onEachPod(func(t *testing.T, pod corev1.PodSpec) {
		require.Equal(t, "ghcr.io/moat-dev/moat@"+digest, pod.Containers[0].Image)
	})},
	"image.pullPolicy": {`"Never"`, onEachPod(func(t *testing.T, pod corev1.PodSpec) {
		require.Equal(t, corev1.PullNever, pod.Containers[0].ImagePullPolicy)
	})},
	"image.pullSecrets": {`[{"name":"registry"}]`, onEachPod(func(t *testing.T, pod corev1.PodSpec) {
		require.Equal(t, []corev1.LocalObjectReference{{Name: "registry"}}, pod.ImagePullSecrets)
	})},
	"logLevel": {`"debug"`, onEachPod(func(t *testing.T, pod corev1.PodSpec) {
		require.Contains(t, pod.Containers[0].Args, "--log-level=debug")
	})},
	"reporting.networkPolicies": {`"Generated"`, func(t *testing.T, w workloads) {
		require.Contains(t, w.operator.Spec.Template.Spec.Containers[0].Args, "--report-network-policies=Generated")
	}},
	"crds.enabled": {`false`, func(t *testing.T, w workloads) {
		for key := range w.objects {
			require.False(t, strings.HasPrefix(key, "CustomResourceDefinition/"), key)
		}
	}},
	"rbac.aggregateClusterRoles": {`false`, func(t *testing.T, w workloads) {
		require.NotContains(t, w.objects, "ClusterRole/moat-view")
		require.NotContains(t, w.objects, "ClusterRole/moat-edit")
		require.NotContains(t, w.objects, "ClusterRole/moat-admin")
	}},
	"uninstall.cleanup": {`false`, func(t *testing.T, w workloads) {
		for key := range w.objects {
			require.NotContains(t, key, "moat-uninstall")
		}
	}},
	"uninstall.timeout": {`77`, func(t *testing.T, w workloads) {
		job := decode[batchv1.Job](t, w.objects, "Job/moat-uninstall")
		require.Contains(t, job.Spec.Template.Spec.Containers[0].Args, "--timeout=77s")
		require.EqualValues(t, 137, *job.Spec.ActiveDeadlineSeconds)
	}},
	"operator.replicas": {`3`, func(t *testing.T, w workloads) {
		require.EqualValues(t, 3, *w.operator.Spec.Replicas)
	}},
	"operator.priorityClassName": {`"own"`, func(t *testing.T, w workloads) {
		require.Equal(t, "own", w.operator.Spec.Template.Spec.PriorityClassName)
	}},
	"operator.podAnnotations": {`{"example.com/a":"b"}`, func(t *testing.T, w workloads) {
		require.Equal(t, map[string]string{"example.com/a": "b"}, w.operator.Spec.Template.Annotations)
	}},
	"operator.podLabels": {`{"team":"net","app.kubernetes.io/component":"none"}`, func(t *testing.T, w workloads) {
		require.Equal(t, "net", w.operator.Spec.Template.Labels["team"])
		require.Equal(t, "operator", w.operator.Spec.Template.Labels["app.kubernetes.io/component"], "Moat's own can't be replaced")
	}},
	"operator.resources": {`{"limits":{"memory":"77Mi"}}`, func(t *testing.T, w workloads) {
		requireMemoryLimit(t, w.operator.Spec.Template.Spec)
	}},
	"operator.nodeSelector": {`{"disk":"ssd"}`, func(t *testing.T, w workloads) {
		require.Equal(t, map[string]string{"disk": "ssd"}, w.operator.Spec.Template.Spec.NodeSelector)
	}},
	"operator.tolerations": {`[{"key":"infra","operator":"Exists"}]`, func(t *testing.T, w workloads) {
		require.Len(t, w.operator.Spec.Template.Spec.Tolerations, 2, "the control plane's taint and the one given")
	}},
	"operator.affinity": {`{"nodeAffinity":{}}`, func(t *testing.T, w workloads) {
		require.NotNil(t, w.operator.Spec.Template.Spec.Affinity.NodeAffinity)
	}},
	"agent.iptablesBackend": {`"legacy"`, inAgentArgs("--iptables-backend=legacy")},
	"agent.podStartGuard": {`"Off"`, func(t *testing.T, w workloads) {
		inAgentArgs("--pod-start-guard=Off")(t, w)
		require.NotContains(t, hostPaths(w.agent), "/var/run/nri", "the runtime is none of its business")
	}},
	"agent.nriDir": {`"/run/k3s/nri"`, func(t *testing.T, w workloads) {
		inAgentArgs("--nri-socket=/host/nri/nri.sock")(t, w)
		require.Contains(t, hostPaths(w.agent), "/run/k3s/nri")
	}},
	"agent.priorityClassName": {`"own"`, func(t *testing.T, w workloads) {
		require.Equal(t, "own", w.agent.Spec.Template.Spec.PriorityClassName)
	}},
	"agent.podAnnotations": {`{"example.com/a":"b"}`, func(t *testing.T, w workloads) {
		require.Equal(t, map[string]string{"example.com/a": "b"}, w.agent.Spec.Template.Annotations)
	}},
	"agent.podLabels": {`{"team":"net","app.kubernetes.io/component":"none"}`, func(t *testing.T, w workloads) {
		require.Equal(t, "net", w.agent.Spec.Template.Labels["team"])
		require.Equal(t, "agent", w.agent.Spec.Template.Labels["app.kubernetes.io/component"], "Moat's own can't be replaced")
	}},
	"agent.resources": {`{"limits":{"memory":"77Mi"}}`, func(t *testing.T, w workloads) {
		requireMemoryLimit(t, w.agent.Spec.Template.Spec)
	}},
	"agent.nodeSelector": {`{"kubernetes.io/os":"linux"}`, func(t *testing.T, w workloads) {
		require.Equal(t, map[string]string{"kubernetes.io/os": "linux"}, w.agent.Spec.Template.Spec.NodeSelector)
	}},
	"agent.tolerations": {`[]`, func(t *testing.T, w workloads) {
		require.Empty(t, w.agent.Spec.Template.Spec.Tolerations)
	}},
	"agent.affinity": {`{"nodeAffinity":{}}`, func(t *testing.T, w workloads) {
		require.NotNil(t, w.agent.Spec.Template.Spec.Affinity.NodeAffinity)
	}},
	"networkPolicy.enabled": {`true`, func(t *testing.T, w workloads) {
		spec := operatorPolicy(t, w)
		require.Subset(t, w.operator.Spec.Template.Labels, spec.PodSelector.MatchLabels)
		require.Equal(t, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, spec.PolicyTypes)
		require.Len(t, spec.Ingress, 1)
		require.Empty(t, spec.Ingress[0].From)
		require.Equal(t, w.operator.Spec.Template.Spec.Containers[0].Ports[0].Name, spec.Ingress[0].Ports[0].Port.String())
	}},
	"networkPolicy.metricsFrom": {`[{"namespaceSelector":{"matchLabels":{"a":"b"}}}],networkPolicy.enabled=true`, func(t *testing.T, w workloads) {
		require.Equal(t, []networkingv1.NetworkPolicyPeer{{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}},
		}}, operatorPolicy(t, w).Ingress[0].From)
	}},
	"monitoring.podMonitor.enabled": {`true`, func(t *testing.T, w workloads) {
		require.Contains(t, w.objects, "PodMonitor/moat-operator")
		require.Contains(t, w.objects, "PodMonitor/moat-agent")
	}},
	"monitoring.podMonitor.interval": {`"17s",monitoring.podMonitor.enabled=true`, func(t *testing.T, w workloads) {
		require.Contains(t, w.objects["PodMonitor/moat-operator"].text, "interval: 17s")
		require.Contains(t, w.objects["PodMonitor/moat-agent"].text, "interval: 17s")
	}},
	"monitoring.podMonitor.labels": {`{"release":"a"},monitoring.podMonitor.enabled=true`, func(t *testing.T, w workloads) {
		require.Contains(t, w.objects["PodMonitor/moat-operator"].text, "release: a")
		require.Contains(t, w.objects["PodMonitor/moat-agent"].text, "release: a")
	}},
	"monitoring.prometheusRule.enabled": {`true`, func(t *testing.T, w workloads) {
		require.Contains(t, w.objects, "PrometheusRule/moat")
	}},
	"monitoring.prometheusRule.labels": {`{"release":"a"},monitoring.prometheusRule.enabled=true`, func(t *testing.T, w workloads) {
		require.Contains(t, w.objects["PrometheusRule/moat"].text, "release: a")
	}},
	"agent.maxUnavailable": {`2`, func(t *testing.T, w workloads) {
		require.Equal(t, 2, w.agent.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.IntValue())
	}},
}

// Whoever doesn't want the agent near the runtime can still have the guard.
func TestNoNRIDirMountsNothing(t *testing.T) {
	agent := agentOf(t, render(t, "--set-json", `agent.nriDir=""`, "--set-json", `agent.podStartGuard="Always"`))
	require.ElementsMatch(t, []string{"/run/xtables.lock", "/proc/sys/net"}, hostPaths(agent))
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

// valueNames lists the values below a group. The members of resources are
// Kubernetes' own.
func valueNames(prefix string, values map[string]any) []string {
	var names []string
	for name, value := range values {
		if group, ok := value.(map[string]any); ok && len(group) > 0 && name != "resources" {
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
	open := map[string]bool{"global": true, "nodeAffinity": true, "podAffinity": true, "podAntiAffinity": true}
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

func TestWrongValuesAreRefused(t *testing.T) {
	for _, test := range []struct{ set, wantError string }{
		{`agents={}`, "additional properties 'agents' not allowed"},

		{`image.repository="Example.com/moat:1"`, "at '/image/repository': 'Example.com/moat:1' does not match pattern"},
		{`image.repository=""`, "at '/image/repository'"},
		{`image.tag="a tag"`, "at '/image/tag': 'a tag' does not match pattern"},
		{`image.tag=1`, "at '/image/tag': got number, want string"},
		{`image.digest="sha256:12"`, "at '/image/digest': 'sha256:12' does not match pattern"},
		{`image.pullPolicy="always"`, "at '/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'"},
		{`image.pullSecrets=["registry"]`, "at '/image/pullSecrets/0': got string, want object"},
		{`image.pullSecrets=[{}]`, "at '/image/pullSecrets/0': missing property 'name'"},
		{`image.pullSecrets=[{"name":"a b"}]`, "at '/image/pullSecrets/0/name': 'a b' does not match pattern"},
		{`image.name="moat"`, "at '/image': additional properties 'name' not allowed"},

		{`logLevel="verbose"`, "at '/logLevel': value must be one of 'info', 'debug'"},
		{`reporting.networkPolicies="Some"`, "at '/reporting/networkPolicies': value must be one of 'All', 'Generated', 'None'"},
		{`reporting.policies="All"`, "at '/reporting': additional properties 'policies' not allowed"},
		{`crds.enabled="yes"`, "at '/crds/enabled': got string, want boolean"},
		{`crds.install=true`, "at '/crds': additional properties 'install' not allowed"},
		{`rbac.aggregateClusterRoles="view"`, "at '/rbac/aggregateClusterRoles': got string, want boolean"},
		{`rbac.create=false`, "at '/rbac': additional properties 'create' not allowed"},

		{`uninstall.timeout="3m"`, "at '/uninstall/timeout': got string, want integer"},
		{`uninstall.timeout=0`, "at '/uninstall/timeout'"},
		{`uninstall.clean=false`, "at '/uninstall': additional properties 'clean' not allowed"},
		{`operator.replicas="two"`, "at '/operator/replicas': got string, want integer"},
		{`operator.replicas=-1`, "at '/operator/replicas': minimum: got -1, want 0"},
		{`operator.replicas=11`, "at '/operator/replicas': maximum: got 11, want 10"},
		{`operator.priorityClassName="High"`, "at '/operator/priorityClassName': 'High' does not match pattern"},
		{`operator.podAnnotations={"a":true}`, "at '/operator/podAnnotations/a': got boolean, want string"},
		{`operator.podLabels={"a":"b c"}`, "at '/operator/podLabels/a': 'b c' does not match pattern"},
		{`operator.podLabels={"a b":"c"}`, "at '/operator/podLabels': additional properties 'a b' not allowed"},
		{`operator.resources={"limit":{}}`, "at '/operator/resources': additional properties 'limit' not allowed"},
		{`operator.resources={"limits":{"memory":"1 GB"}}`, "at '/operator/resources/limits/memory'"},
		{`operator.nodeSelector={"a":1}`, "at '/operator/nodeSelector/a': got number, want string"},
		{`operator.tolerations={"operator":"Exists"}`, "at '/operator/tolerations': got object, want array"},
		{`operator.affinity={"nodeAfinity":{}}`, "at '/operator/affinity': additional properties 'nodeAfinity' not allowed"},
		{`operator.image="moat"`, "at '/operator': additional properties 'image' not allowed"},

		{`agent.iptableBackend="nft"`, "at '/agent': additional properties 'iptableBackend' not allowed"},
		{`agent.iptablesBackend="ebtables"`, "at '/agent/iptablesBackend': value must be one of 'auto', 'nft', 'legacy'"},
		{`agent.podStartGuard="off"`, "at '/agent/podStartGuard': value must be one of 'Auto', 'Always', 'Off'"},
		{`agent.nriDir="nri"`, "at '/agent/nriDir': 'nri' does not match pattern"},
		{`agent.priorityClassName=1`, "at '/agent/priorityClassName': got number, want string"},
		{`agent.podAnnotations=["a"]`, "at '/agent/podAnnotations': got array, want object"},
		{`agent.podLabels={"a":"-"}`, "at '/agent/podLabels/a': '-' does not match pattern"},
		{`agent.resources={"requests":{"cpu":-1}}`, "at '/agent/resources/requests/cpu'"},
		{`agent.nodeSelector="linux"`, "at '/agent/nodeSelector': got string, want object"},
		{`agent.tolerations=[{"operator":"Everything"}]`, "at '/agent/tolerations/0/operator': value must be one of 'Exists', 'Equal'"},
		{`agent.affinity=[]`, "at '/agent/affinity': got array, want object"},
		{`agent.maxUnavailable="0%"`, "at '/agent/maxUnavailable'"},
		{`agent.maxUnavailable=0`, "at '/agent/maxUnavailable'"},

		{`networkPolicy.enabled="on"`, "at '/networkPolicy/enabled': got string, want boolean"},
		{`networkPolicy.metricsFrom=[{}]`, "at '/networkPolicy/metricsFrom/0': minProperties: got 0, want 1"},
		{`networkPolicy.metricsFrom=[{"podSelectors":{}}]`, "at '/networkPolicy/metricsFrom/0': additional properties 'podSelectors' not allowed"},
		{`networkPolicy.metricsFrom=[{"ipBlock":{"cidr":"10.0.0.1"}}]`, "at '/networkPolicy/metricsFrom/0/ipBlock/cidr': '10.0.0.1' does not match pattern"},
		{`networkPolicy.egress=[]`, "at '/networkPolicy': additional properties 'egress' not allowed"},

		{`monitoring.serviceMonitor={}`, "at '/monitoring': additional properties 'serviceMonitor' not allowed"},
		{`monitoring.podMonitor.enabled=1`, "at '/monitoring/podMonitor/enabled': got number, want boolean"},
		{`monitoring.podMonitor.interval="often"`, "at '/monitoring/podMonitor/interval': 'often' does not match pattern"},
		{`monitoring.podMonitor.labels={"a":null,"b":{}}`, "at '/monitoring/podMonitor/labels/b': got object, want string"},
		{`monitoring.prometheusRule.enabled="true"`, "at '/monitoring/prometheusRule/enabled': got string, want boolean"},
		{`monitoring.prometheusRule.labels=[]`, "at '/monitoring/prometheusRule/labels': got array, want object"},
	} {
		t.Run(test.set, func(t *testing.T) {
			_, err := template(t, "--set-json", test.set)
			require.ErrorContains(t, err, test.wantError)
		})
	}
}

func TestTooOldKubernetesIsRefused(t *testing.T) {
	_, err := template(t, "--kube-version", "1.31.9")
	require.ErrorContains(t, err, "chart requires kubeVersion")
}

// As a dependency of another chart, Helm adds "global".
func TestGlobalValuesAreAccepted(t *testing.T) {
	_, err := template(t, "--set-json", `global={"imageRegistry":"example.com"}`)
	require.NoError(t, err)
}
