package placement

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func taint(key, value string, effect corev1.TaintEffect) corev1.Taint {
	return corev1.Taint{Key: key, Value: value, Effect: effect}
}

// affinityTo wants a Node whose label has one of the values.
func affinityTo(label string, operator corev1.NodeSelectorOperator, values ...string) *corev1.Affinity {
	return &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: label, Operator: operator, Values: values}}},
		}},
	}}
}

// Each row is what NodeShouldRunDaemonPod answers in Kubernetes 1.37.
func TestPlacement(t *testing.T) {
	all := []corev1.Toleration{{Operator: corev1.TolerationOpExists}}
	for name, test := range map[string]struct {
		spec            corev1.PodSpec
		taints          []corev1.Taint
		wanted, mayStay bool
	}{
		"nothing asked":          {wanted: true, mayStay: true},
		"selected by label":      {spec: corev1.PodSpec{NodeSelector: map[string]string{"pool": "web"}}, wanted: true, mayStay: true},
		"another label":          {spec: corev1.PodSpec{NodeSelector: map[string]string{"pool": "db"}}},
		"one label of two":       {spec: corev1.PodSpec{NodeSelector: map[string]string{"pool": "web", "moat": "yes"}}},
		"affinity":               {spec: corev1.PodSpec{Affinity: affinityTo("pool", corev1.NodeSelectorOpIn, "db", "web")}, wanted: true, mayStay: true},
		"affinity to others":     {spec: corev1.PodSpec{Affinity: affinityTo("pool", corev1.NodeSelectorOpNotIn, "web")}},
		"affinity not readable":  {spec: corev1.PodSpec{Affinity: affinityTo("pool", "Like", "web")}},
		"label, but no affinity": {spec: corev1.PodSpec{NodeSelector: map[string]string{"pool": "web"}, Affinity: affinityTo("moat", corev1.NodeSelectorOpExists)}},
		"preferred affinity is only a wish": {spec: corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{Weight: 1, Preference: corev1.NodeSelectorTerm{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "moat", Operator: corev1.NodeSelectorOpExists}}}}},
		}}}, wanted: true, mayStay: true},
		"no term at all selects nothing": {spec: corev1.PodSpec{Affinity: &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{}}}}},
		"its name":     {spec: corev1.PodSpec{NodeName: "node-1"}, wanted: true, mayStay: true},
		"another name": {spec: corev1.PodSpec{NodeName: "node-2"}},

		"NoSchedule keeps new pods away": {taints: []corev1.Taint{taint("gpu", "", corev1.TaintEffectNoSchedule)}, mayStay: true},
		"NoExecute sends pods away":      {taints: []corev1.Taint{taint("gpu", "", corev1.TaintEffectNoExecute)}},
		"both":                           {taints: []corev1.Taint{taint("a", "", corev1.TaintEffectNoSchedule), taint("b", "", corev1.TaintEffectNoExecute)}},
		"PreferNoSchedule":               {taints: []corev1.Taint{taint("gpu", "", corev1.TaintEffectPreferNoSchedule)}, wanted: true, mayStay: true},
		"all tolerated": {spec: corev1.PodSpec{Tolerations: all}, wanted: true, mayStay: true,
			taints: []corev1.Taint{taint("a", "", corev1.TaintEffectNoSchedule), taint("b", "", corev1.TaintEffectNoExecute)}},
		"tolerated for another effect": {spec: corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: "gpu", Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}},
			taints: []corev1.Taint{taint("gpu", "", corev1.TaintEffectNoExecute)}},
		"tolerated for another value": {spec: corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: "gpu", Value: "big"}}},
			taints: []corev1.Taint{taint("gpu", "small", corev1.TaintEffectNoSchedule)}, mayStay: true},
		"tolerated by a number": {spec: corev1.PodSpec{Tolerations: []corev1.Toleration{{Key: "sla", Operator: corev1.TolerationOpGt, Value: "90"}}},
			taints: []corev1.Taint{taint("sla", "99", corev1.TaintEffectNoSchedule)}, wanted: true, mayStay: true},
		"another label and a taint": {spec: corev1.PodSpec{NodeSelector: map[string]string{"pool": "db"}},
			taints: []corev1.Taint{taint("gpu", "", corev1.TaintEffectNoSchedule)}},

		"a cordoned Node under pressure that is away": {wanted: true, mayStay: true, taints: []corev1.Taint{
			taint(corev1.TaintNodeNotReady, "", corev1.TaintEffectNoExecute), taint(corev1.TaintNodeUnreachable, "", corev1.TaintEffectNoExecute),
			taint(corev1.TaintNodeDiskPressure, "", corev1.TaintEffectNoSchedule), taint(corev1.TaintNodeMemoryPressure, "", corev1.TaintEffectNoSchedule),
			taint(corev1.TaintNodePIDPressure, "", corev1.TaintEffectNoSchedule), taint(corev1.TaintNodeUnschedulable, "", corev1.TaintEffectNoSchedule)}},
		"without pod network, host network": {spec: corev1.PodSpec{HostNetwork: true}, wanted: true, mayStay: true,
			taints: []corev1.Taint{taint(corev1.TaintNodeNetworkUnavailable, "", corev1.TaintEffectNoSchedule)}},
		"without pod network": {mayStay: true,
			taints: []corev1.Taint{taint(corev1.TaintNodeNetworkUnavailable, "", corev1.TaintEffectNoSchedule)}},
		"not ready, for new pods": {mayStay: true, taints: []corev1.Taint{taint(corev1.TaintNodeNotReady, "", corev1.TaintEffectNoSchedule)}},
	} {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{"pool": "web"}},
				Spec:       corev1.NodeSpec{Taints: test.taints},
			}
			have := Of(&test.spec, node)
			require.Equal(t, test.wanted, have.Wanted(), "wanted")
			require.Equal(t, test.mayStay, have.MayStay(), "may stay")
		})
	}
}

// The taints are named as they are, for messages.
func TestPlacementNamesTheTaints(t *testing.T) {
	gpu := taint("gpu", "small", corev1.TaintEffectNoSchedule)
	node := &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{taint("wish", "", corev1.TaintEffectPreferNoSchedule), gpu}}}
	spec := &corev1.PodSpec{}
	require.Equal(t, Placement{Selected: true, Repelling: []corev1.Taint{gpu}}, Of(spec, node))
	require.Empty(t, spec.Tolerations, "the spec is only read")
}
