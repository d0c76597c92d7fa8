package charts_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// portOf returns a container's port by its name.
func portOf(t *testing.T, container corev1.Container, name string) int32 {
	t.Helper()
	for _, port := range container.Ports {
		if port.Name == name {
			return port.ContainerPort
		}
	}
	require.Fail(t, "no such port", name)
	return 0
}

func fieldVariable(name, path string) corev1.EnvVar {
	return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
}

func labelsOf(t *testing.T, o object) map[string]string {
	t.Helper()
	var head metav1.PartialObjectMetadata
	require.NoError(t, yaml.Unmarshal([]byte(o.text), &head))
	return head.Labels
}

// requiredTerms are those of which a node has to meet one to get an agent.
func requiredTerms(t *testing.T, agent appsv1.DaemonSet) []corev1.NodeSelectorTerm {
	t.Helper()
	required := agent.Spec.Template.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution
	require.NotNil(t, required)
	return required.NodeSelectorTerms
}

// excluded is how each term of the agents begins or ends by default.
var excluded = []corev1.NodeSelectorRequirement{
	{Key: "eks.amazonaws.com/compute-type", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"fargate"}},
	{Key: "type", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"virtual-kubelet"}},
}

// valueTests has each value of values.yaml.
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
	"image.pullSecrets": {`[{"name":"registry"},"second","registry"]`, onEachPod(func(t *testing.T, pod corev1.PodSpec) {
		require.Equal(t, []corev1.LocalObjectReference{{Name: "registry"}, {Name: "second"}}, pod.ImagePullSecrets)
	})},
	"logLevel": {`"debug"`, onEachPod(func(t *testing.T, pod corev1.PodSpec) {
		require.Contains(t, pod.Containers[0].Args, "--log-level=debug")
	})},
	"logFormat": {`"json"`, onEachPod(func(t *testing.T, pod corev1.PodSpec) {
		require.Contains(t, pod.Containers[0].Args, "--log-format=json")
	})},
	"commonLabels": {`{"team":"net","app.kubernetes.io/name":"none"}`, func(t *testing.T, w workloads) {
		for key, object := range w.objects {
			labels := labelsOf(t, object)
			require.Equal(t, "net", labels["team"], key)
			require.Equal(t, "moat", labels["app.kubernetes.io/name"], "Moat's own can't be replaced: %s", key)
		}
		for _, template := range []corev1.PodTemplateSpec{w.operator.Spec.Template, w.agent.Spec.Template} {
			require.Equal(t, "net", template.Labels["team"])
		}
		require.NotContains(t, w.operator.Spec.Selector.MatchLabels, "team")
		require.NotContains(t, w.agent.Spec.Selector.MatchLabels, "team")
	}},
	"revisionHistoryLimit": {`3`, func(t *testing.T, w workloads) {
		require.EqualValues(t, 3, *w.operator.Spec.RevisionHistoryLimit)
		require.EqualValues(t, 3, *w.agent.Spec.RevisionHistoryLimit)
	}},
	"admissionPolicies.enabled": {`false,agentAbsence.taint=false`, func(t *testing.T, w workloads) {
		require.NotContains(t, w.objects, "ClusterRole/moat-operator-taints", "nothing would bound it")
		for key := range w.objects {
			require.NotContains(t, key, "ValidatingAdmissionPolicy")
			require.NotContains(t, key, "moat-removal", "nothing would judge it")
		}
	}},
	"flowControl.enabled": {`false`, func(t *testing.T, w workloads) {
		require.NotContains(t, w.objects, "FlowSchema/moat-agent-reports")
		require.NotContains(t, w.objects, "PriorityLevelConfiguration/moat-agent-reports")
	}},
	"resourceQuota.enabled": {`true`, func(t *testing.T, w workloads) {
		scope := decode[corev1.ResourceQuota](t, w.objects, "ResourceQuota/moat").Spec.ScopeSelector.MatchExpressions[0]
		require.Equal(t, corev1.ResourceQuotaScopePriorityClass, scope.ScopeName)
		for _, pod := range w.pods() {
			require.Contains(t, scope.Values, pod.PriorityClassName)
		}
	}},
	"resourceQuota.pods": {`77,resourceQuota.enabled=true`, func(t *testing.T, w workloads) {
		quota := decode[corev1.ResourceQuota](t, w.objects, "ResourceQuota/moat")
		require.Equal(t, corev1.ResourceList{corev1.ResourcePods: resource.MustParse("77")}, quota.Spec.Hard)
	}},
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
	"uninstall.check": {`false`, func(t *testing.T, w workloads) {
		for key := range w.objects {
			require.NotContains(t, key, "moat-removal")
		}
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
		require.Equal(t, map[string]string{"disk": "ssd", "kubernetes.io/os": "linux"}, w.operator.Spec.Template.Spec.NodeSelector)
	}},
	"operator.tolerations": {`[{"key":"infra","operator":"Exists"}]`, func(t *testing.T, w workloads) {
		require.Len(t, w.operator.Spec.Template.Spec.Tolerations, 3, "those for the control plane and for nodes without an agent, and the one given")
	}},
	"operator.affinity": {`{"nodeAffinity":{}}`, func(t *testing.T, w workloads) {
		require.NotNil(t, w.operator.Spec.Template.Spec.Affinity.NodeAffinity)
	}},
	"operator.ports.metrics": {`18080`, func(t *testing.T, w workloads) {
		container := w.operator.Spec.Template.Spec.Containers[0]
		require.Contains(t, container.Args, "--metrics-address=:18080")
		require.EqualValues(t, 18080, portOf(t, container, "metrics"))
	}},
	"operator.ports.health": {`18081`, func(t *testing.T, w workloads) {
		container := w.operator.Spec.Template.Spec.Containers[0]
		require.Contains(t, container.Args, "--health-address=:18081")
		require.EqualValues(t, 18081, portOf(t, container, container.LivenessProbe.HTTPGet.Port.String()))
		require.EqualValues(t, 18081, portOf(t, container, container.ReadinessProbe.HTTPGet.Port.String()))
	}},
	"operator.metricsAuthentication": {`true`, func(t *testing.T, w workloads) {
		require.Contains(t, w.operator.Spec.Template.Spec.Containers[0].Args, "--metrics-authentication")
		require.Contains(t, w.objects, "ClusterRoleBinding/moat-metrics")
	}},
	"operator.extraArgs": {`["--pprof-address=127.0.0.1:6060"]`, func(t *testing.T, w workloads) {
		require.Contains(t, w.operator.Spec.Template.Spec.Containers[0].Args, "--pprof-address=127.0.0.1:6060")
	}},
	"operator.extraEnv": {`[{"name":"KUBERNETES_SERVICE_HOST","value":"10.0.0.1"}]`, func(t *testing.T, w workloads) {
		require.Contains(t, w.operator.Spec.Template.Spec.Containers[0].Env, corev1.EnvVar{Name: "KUBERNETES_SERVICE_HOST", Value: "10.0.0.1"})
	}},
	"operator.serviceAccount.annotations": {`{"example.com/a":"b"}`, func(t *testing.T, w workloads) {
		require.Equal(t, map[string]string{"example.com/a": "b"}, decode[corev1.ServiceAccount](t, w.objects, "ServiceAccount/moat-operator").Annotations)
		require.Empty(t, decode[corev1.ServiceAccount](t, w.objects, "ServiceAccount/moat-agent").Annotations)
	}},
	"agent.iptablesBackend": {`"legacy"`, inAgentArgs("--iptables-backend=legacy")},
	"agent.podStartGuard": {`"Off"`, func(t *testing.T, w workloads) {
		inAgentArgs("--pod-start-guard=Off")(t, w)
		require.NotContains(t, hostPaths(w.agent), "/var/run/nri", "the runtime is none of its business")
	}},
	"agent.antiSpoofing": {`"Off"`, func(t *testing.T, w workloads) {
		inAgentArgs("--anti-spoofing=Off")(t, w)
		require.NotContains(t, hostPaths(w.agent), "/run/netns")
	}},
	"agent.budgets.mode":      {`"Report"`, inAgentArgs("--budget-mode=Report")},
	"agent.budgets.policy":    {`{"elements":1000000,"prefixes":7}`, inAgentArgs("--budget-policy=prefixes=7,elements=1000000")},
	"agent.budgets.namespace": {`{"rules":120000}`, inAgentArgs("--budget-namespace=rules=120000")},
	"agent.budgets.node":      {`{"sets":9}`, inAgentArgs("--budget-node=sets=9")},
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
	"agent.nodeSelector": {`{"moat":"enforce"}`, func(t *testing.T, w workloads) {
		require.Equal(t, map[string]string{"kubernetes.io/os": "linux", "moat": "enforce"}, w.agent.Spec.Template.Spec.NodeSelector)
	}},
	"agent.excludedNodes": {`{"type":null,"node-role.example.com/edge":["true"]}`, func(t *testing.T, w workloads) {
		require.Equal(t, []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
			{Key: "eks.amazonaws.com/compute-type", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"fargate"}},
			{Key: "node-role.example.com/edge", Operator: corev1.NodeSelectorOpNotIn, Values: []string{"true"}},
		}}}, requiredTerms(t, w.agent))
	}},
	"agent.tolerations": {`[]`, func(t *testing.T, w workloads) {
		require.Empty(t, w.agent.Spec.Template.Spec.Tolerations)
	}},
	"agent.affinity": {`{"podAntiAffinity":{}}`, func(t *testing.T, w workloads) {
		require.NotNil(t, w.agent.Spec.Template.Spec.Affinity.PodAntiAffinity)
		require.Equal(t, []corev1.NodeSelectorTerm{{MatchExpressions: excluded}}, requiredTerms(t, w.agent))
	}},
	"agentAbsence.taint": {`false`, func(t *testing.T, w workloads) {
		require.Contains(t, w.operator.Spec.Template.Spec.Containers[0].Args, "--absent-agents=Report")
		require.Contains(t, w.objects, "ClusterRole/moat-operator-taints", "the taints that there are go")
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
	"agent.updateStrategy.type": {`"OnDelete"`, func(t *testing.T, w workloads) {
		require.Equal(t, appsv1.DaemonSetUpdateStrategy{Type: appsv1.OnDeleteDaemonSetStrategyType}, w.agent.Spec.UpdateStrategy)
	}},
	"agent.updateStrategy.rollingUpdate.maxUnavailable": {`"5%"`, func(t *testing.T, w workloads) {
		require.Equal(t, appsv1.RollingUpdateDaemonSetStrategyType, w.agent.Spec.UpdateStrategy.Type)
		require.Equal(t, "5%", w.agent.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String())
	}},
	"agent.minReadySeconds": {`17`, func(t *testing.T, w workloads) {
		require.EqualValues(t, 17, w.agent.Spec.MinReadySeconds)
	}},
	"agent.terminationGracePeriodSeconds": {`77`, func(t *testing.T, w workloads) {
		require.EqualValues(t, 77, *w.agent.Spec.Template.Spec.TerminationGracePeriodSeconds)
	}},
	"agent.ports.metrics": {`19470`, func(t *testing.T, w workloads) {
		inAgentArgs("--metrics-address=:19470")(t, w)
		require.EqualValues(t, 19470, portOf(t, w.agent.Spec.Template.Spec.Containers[0], "metrics"))
	}},
	"agent.metricsListen": {`"NodeIP"`, func(t *testing.T, w workloads) {
		inAgentArgs("--metrics-address=[$(NODE_IP)]:9470")(t, w)
		require.Contains(t, w.agent.Spec.Template.Spec.Containers[0].Env, fieldVariable("NODE_IP", "status.hostIP"))
	}},
	"agent.metricsAuthentication": {`true`, func(t *testing.T, w workloads) {
		inAgentArgs("--metrics-authentication")(t, w)
		require.Contains(t, w.objects, "ClusterRoleBinding/moat-metrics")
		require.Contains(t, w.objects, "ClusterRole/moat-metrics-reader")
	}},
	"agent.ports.health": {`19471`, func(t *testing.T, w workloads) {
		inAgentArgs("--health-address=127.0.0.1:19471")(t, w)
		container := w.agent.Spec.Template.Spec.Containers[0]
		require.Equal(t, 19471, container.LivenessProbe.HTTPGet.Port.IntValue())
		require.Equal(t, 19471, container.ReadinessProbe.HTTPGet.Port.IntValue())
	}},
	"agent.extraArgs": {`["--pprof-address=127.0.0.1:6060"]`, inAgentArgs("--pprof-address=127.0.0.1:6060")},
	"agent.extraEnv": {`[{"name":"HOST_IP","valueFrom":{"fieldRef":{"fieldPath":"status.hostIP"}}}]`, func(t *testing.T, w workloads) {
		require.Contains(t, w.agent.Spec.Template.Spec.Containers[0].Env, fieldVariable("HOST_IP", "status.hostIP"))
	}},
	"agent.seLinuxOptions": {`{"type":"spc_t"}`, func(t *testing.T, w workloads) {
		require.Equal(t, &corev1.SELinuxOptions{Type: "spc_t"}, w.agent.Spec.Template.Spec.Containers[0].SecurityContext.SELinuxOptions)
	}},
	"agent.serviceAccount.annotations": {`{"example.com/a":"b"}`, func(t *testing.T, w workloads) {
		require.Equal(t, map[string]string{"example.com/a": "b"}, decode[corev1.ServiceAccount](t, w.objects, "ServiceAccount/moat-agent").Annotations)
		require.Empty(t, decode[corev1.ServiceAccount](t, w.objects, "ServiceAccount/moat-operator").Annotations)
	}},
}
