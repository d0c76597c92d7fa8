package placement

import (
	"slices"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
)

// Placement says how a pod's spec and a Node fit together.
type Placement struct {
	// Selected says whether the spec's nodeName, its nodeSelector and its required node
	// affinity accept the Node.
	Selected bool

	// Repelling are the Node's taints NoSchedule and NoExecute that the spec does not
	// tolerate, in the order of the Node.
	Repelling []corev1.Taint
}

// Of compares a pod's spec with a Node. For a DaemonSet, pass the spec of its template: Of adds
// the tolerations that the DaemonSet controller gives to each of its pods. A selector that can't
// be read accepts no Node.
func Of(spec *corev1.PodSpec, node *corev1.Node) Placement {
	// A Node matches as far as its selector can be read: the controller ignores this
	// error as well.
	fits, _ := nodeaffinity.NewRequiredNodeAffinity(spec.NodeSelector, spec.Affinity).Match(node)
	tolerations := slices.Concat(spec.Tolerations, addedTolerations(spec))
	var repelling []corev1.Taint
	for i := range node.Spec.Taints {
		if taint := &node.Spec.Taints[i]; repels(taint) && !tolerated(taint, tolerations) {
			repelling = append(repelling, *taint)
		}
	}
	return Placement{
		Selected:  fits && (spec.NodeName == "" || spec.NodeName == node.Name),
		Repelling: repelling,
	}
}

// Wanted reports whether the DaemonSet controller puts a pod on the Node.
func (p Placement) Wanted() bool { return p.Selected && len(p.Repelling) == 0 }

// MayStay reports whether the controller lets a pod that is on the Node go on running: the
// taint NoSchedule removes no pod.
func (p Placement) MayStay() bool {
	return p.Selected && !slices.ContainsFunc(p.Repelling, func(t corev1.Taint) bool {
		return t.Effect == corev1.TaintEffectNoExecute
	})
}

// repels reports whether the taint keeps the controller from placing a pod. PreferNoSchedule doesn't.
func repels(taint *corev1.Taint) bool {
	return taint.Effect == corev1.TaintEffectNoSchedule || taint.Effect == corev1.TaintEffectNoExecute
}

func tolerated(taint *corev1.Taint, tolerations []corev1.Toleration) bool {
	return slices.ContainsFunc(tolerations, func(t corev1.Toleration) bool {
		// The operators Lt and Gt count: an API server without that feature refuses them.
		return t.ToleratesTaint(logr.Discard(), taint, true)
	})
}

// addedTolerations are the tolerations that the controller adds to each pod of a DaemonSet
// (AddOrUpdateDaemonPodTolerations in pkg/controller/daemon/util/daemonset_util.go).
func addedTolerations(spec *corev1.PodSpec) []corev1.Toleration {
	exists := func(key string, effect corev1.TaintEffect) corev1.Toleration {
		return corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
	}
	added := []corev1.Toleration{
		exists(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute),
		exists(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute),
		exists(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule),
		exists(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule),
		exists(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule),
		exists(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule),
	}
	if spec.HostNetwork {
		added = append(added, exists(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule))
	}
	return added
}
