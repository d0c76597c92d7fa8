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
	"crds.install": {`false`, func(t *testing.T, w workloads) {
		for key := range w.objects {
			require.False(t, strings.HasPrefix(key, "CustomResourceDefinition/"), key)
		}
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
	"agent.resources": {`{"limits":{"memory":"77Mi"}}`, func(t *testing.T, w workloads) {
		requireMemoryLimit(t, w.agent.Spec.Template.Spec)
	}},
	"agent.nodeSelector": {`{"kubernetes.io/os":"linux"}`, func(t *testing.T, w workloads) {
		require.Equal(t, map[string]string{"kubernetes.io/os": "linux"}, w.agent.Spec.Template.Spec.NodeSelector)
	}},
	"agent.tolerations": {`[]`, func(t *testing.T, w workloads) {
		require.Empty(t, w.agent.Spec.Template.Spec.Tolerations)
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

// A value that is added to values.yaml must be added to valueTests.
func TestEachValueIsTested(t *testing.T) {
	var values map[string]any
	readYAML(t, chart+"/values.yaml", &values)
	var names []string
	for name, value := range values {
		group, ok := value.(map[string]any)
		if !ok {
			names = append(names, name)
		}
		for member := range group {
			names = append(names, name+"."+member)
		}
	}
	require.ElementsMatch(t, names, slices.Collect(maps.Keys(valueTests)))
}

func TestWrongValuesAreRefused(t *testing.T) {
	for _, test := range []struct{ set, wantError string }{
		{`agent.iptableBackend="nft"`, "at '/agent': additional properties 'iptableBackend' not allowed"},
		{`agents={}`, "additional properties 'agents' not allowed"},
		{`agent.iptablesBackend="ebtables"`, "at '/agent/iptablesBackend': value must be one of 'auto', 'nft', 'legacy'"},
		{`agent.podStartGuard="off"`, "at '/agent/podStartGuard': value must be one of 'Auto', 'Always', 'Off'"},
		{`agent.nriDir="nri"`, "at '/agent/nriDir'"},
		{`agent.maxUnavailable="0%"`, "at '/agent/maxUnavailable'"},
		{`agent.tolerations=[{"operator":"Everything"}]`, "at '/agent/tolerations/0/operator'"},
		{`logLevel="verbose"`, "at '/logLevel': value must be one of 'info', 'debug'"},
		{`reporting.networkPolicies="Some"`, "at '/reporting/networkPolicies': value must be one of 'All', 'Generated', 'None'"},
		{`uninstall.timeout="3m"`, "at '/uninstall/timeout': got string, want integer"},
		{`uninstall.timeout=0`, "at '/uninstall/timeout'"},
		{`uninstall.clean=false`, "at '/uninstall': additional properties 'clean' not allowed"},
		{`operator.replicas="two"`, "at '/operator/replicas': got string, want integer"},
		{`operator.replicas=-1`, "at '/operator/replicas'"},
		{`image.pullPolicy="always"`, "at '/image/pullPolicy'"},
		{`image.tag="a tag"`, "at '/image/tag'"},
		{`image.digest="sha256:12"`, "at '/image/digest'"},
		{`crds.install="yes"`, "at '/crds/install': got string, want boolean"},
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
