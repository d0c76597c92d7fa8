package charts_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// node is one with these labels and those that every kubelet sets.
func node(operatingSystem string, labels map[string]string) *corev1.Node {
	all := map[string]string{corev1.LabelOSStable: operatingSystem, corev1.LabelHostname: "a"}
	for name, value := range labels {
		all[name] = value
	}
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: all}}
}

// wants says by Kubernetes' own code whether a pod may run on a node by its labels.
func wants(t *testing.T, spec corev1.PodSpec, node *corev1.Node) bool {
	t.Helper()
	fits, err := nodeaffinity.GetRequiredNodeAffinity(&corev1.Pod{Spec: spec}).Match(node)
	require.NoError(t, err)
	return fits
}

var nodes = map[string]struct {
	node *corev1.Node
	runs bool // containers of its own
}{
	"a Linux node":            {node("linux", nil), true},
	"a control plane":         {node("linux", map[string]string{"node-role.kubernetes.io/control-plane": ""}), true},
	"of another type":         {node("linux", map[string]string{"type": "gpu"}), true},
	"EKS with EC2":            {node("linux", map[string]string{"eks.amazonaws.com/compute-type": "ec2"}), true},
	"a Windows node":          {node("windows", nil), false},
	"a virtual-kubelet":       {node("linux", map[string]string{"type": "virtual-kubelet"}), false},
	"a Fargate node of EKS":   {node("linux", map[string]string{"eks.amazonaws.com/compute-type": "fargate"}), false},
	"a Windows node of Azure": {node("windows", map[string]string{"type": "virtual-kubelet"}), false},
}

func TestAgentsRunOnEveryNodeThatRunsContainers(t *testing.T) {
	agent := agentOf(t, render(t))
	require.Equal(t, []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, agent.Spec.Template.Spec.Tolerations)
	require.Equal(t, "system-node-critical", agent.Spec.Template.Spec.PriorityClassName)
	for name, test := range nodes {
		require.Equal(t, test.runs, wants(t, agent.Spec.Template.Spec, test.node), name)
	}
	installed := decode[appsv1.DaemonSet](t, kustomize(t, "default"), "DaemonSet/moat-agent")
	for name, test := range nodes {
		require.Equal(t, test.runs, wants(t, installed.Spec.Template.Spec, test.node), "kustomize: %s", name)
	}
}

// A user's affinity narrows where agents run, and never brings an excluded node back.
func TestAUsersAffinityKeepsTheExclusion(t *testing.T) {
	const required = `agent.affinity={"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":`
	inZone, inA := func(zone string, labels map[string]string) *corev1.Node {
		n := node("linux", labels)
		n.Labels[corev1.LabelTopologyZone] = zone
		return n
	}, map[string]string{"type": "virtual-kubelet"}
	zones := required + `[
		{"matchExpressions":[{"key":"topology.kubernetes.io/zone","operator":"In","values":["a"]}]},
		{"matchExpressions":[{"key":"topology.kubernetes.io/zone","operator":"In","values":["b"]}]}]}}}`
	spec := agentOf(t, render(t, "--set-json", zones)).Spec.Template.Spec
	require.True(t, wants(t, spec, inZone("a", nil)))
	require.True(t, wants(t, spec, inZone("b", nil)))
	require.False(t, wants(t, spec, inZone("c", nil)))
	require.False(t, wants(t, spec, inZone("a", inA)))
	require.False(t, wants(t, spec, inZone("b", inA)))

	byField := required + `[{"matchFields":[{"key":"metadata.name","operator":"In","values":["a"]}]}]}}}`
	spec = agentOf(t, render(t, "--set-json", byField)).Spec.Template.Spec
	require.True(t, wants(t, spec, node("linux", nil)))
	require.False(t, wants(t, spec, node("linux", inA)))

	// A term without members matches no node in Kubernetes.
	spec = agentOf(t, render(t, "--set-json", required+`[{}]}}}`)).Spec.Template.Spec
	require.False(t, wants(t, spec, node("linux", nil)))

	// What is only preferred, and what is about pods, stays as it is.
	agent := agentOf(t, render(t, "--set-json", `agent.affinity={"podAntiAffinity":{},"nodeAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[
		{"weight":1,"preference":{"matchExpressions":[{"key":"disk","operator":"Exists"}]}}]}}`))
	require.NotNil(t, agent.Spec.Template.Spec.Affinity.PodAntiAffinity)
	require.Len(t, agent.Spec.Template.Spec.Affinity.NodeAffinity.PreferredDuringSchedulingIgnoredDuringExecution, 1)
	require.Equal(t, []corev1.NodeSelectorTerm{{MatchExpressions: excluded}}, requiredTerms(t, agent))

	// Who wants agents there says so.
	agent = agentOf(t, render(t, "--set-json", `agent.excludedNodes={"type":null,"eks.amazonaws.com/compute-type":null}`))
	require.Nil(t, agent.Spec.Template.Spec.Affinity)
}

// The test is placed, named and pulled as the operator is.
func TestTheTestIsPlacedAsTheOperator(t *testing.T) {
	objects := render(t, "--values", "testdata/everything.yaml", "--set", "operator.priorityClassName=own")
	operator := operatorOf(t, objects).Spec.Template
	test := decode[corev1.Pod](t, objects, "Pod/moat-test")
	require.NotEmpty(t, operator.Spec.Affinity)
	require.Equal(t, operator.Spec.NodeSelector, test.Spec.NodeSelector)
	require.Equal(t, operator.Spec.Affinity, test.Spec.Affinity)
	require.Subset(t, test.Spec.Tolerations, operator.Spec.Tolerations)
	require.Equal(t, operator.Spec.ImagePullSecrets, test.Spec.ImagePullSecrets)
	require.Equal(t, operator.Spec.Containers[0].Image, test.Spec.Containers[0].Image)
	require.Equal(t, operator.Labels["team"], test.Labels["team"])
	require.Equal(t, "test", test.Labels["app.kubernetes.io/component"], "the budget and the policy are for the operator alone")
}
