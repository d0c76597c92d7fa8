package absence

import (
	"context"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/agents"
)

// always enqueues the one object of the queue.
var always = handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
	return []reconcile.Request{cluster}
})

// CacheByObject returns how the manager's cache must hold the objects by which the
// operator sees that Moat is installed in a namespace: these alone, by their names.
// What it must hold of Nodes, Pods and NodeEnforcements, the other controllers say.
func CacheByObject(namespace string) map[client.Object]cache.ByObject {
	named := func(name string) cache.ByObject {
		return cache.ByObject{Namespaces: map[string]cache.Config{
			namespace: {FieldSelector: fields.OneTermEqualSelector("metadata.name", name)},
		}}
	}
	return map[client.Object]cache.ByObject{
		&corev1.Namespace{}:  {Field: fields.OneTermEqualSelector("metadata.name", namespace)},
		&corev1.ConfigMap{}:  named(v1alpha1.ReleaseMarker),
		&appsv1.Deployment{}: named(deploymentName),
		&appsv1.DaemonSet{}:  named(agents.DaemonSetName),
	}
}

// updates lets all events pass but updates that don't matter.
func updates[T client.Object](matters func(before, after T) bool) predicate.Funcs {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		return matters(e.ObjectOld.(T), e.ObjectNew.(T))
	}}
}

// nodeChanges leaves out what a kubelet writes all the time.
func nodeChanges() predicate.Predicate {
	return updates(func(before, after *corev1.Node) bool {
		return isReady(before) != isReady(after) ||
			(before.DeletionTimestamp == nil) != (after.DeletionTimestamp == nil) ||
			!maps.Equal(before.Labels, after.Labels) ||
			!slices.Equal(taintTexts(before), taintTexts(after))
	})
}

func taintTexts(node *corev1.Node) []string {
	texts := make([]string, 0, len(node.Spec.Taints))
	for i := range node.Spec.Taints {
		texts = append(texts, node.Spec.Taints[i].ToString())
	}
	return texts
}

// tainted lets pass what is left to take away.
func tainted() predicate.Predicate {
	return predicate.NewPredicateFuncs(func(object client.Object) bool { return isTainted(object.(*corev1.Node)) })
}

// agentChanges are those of agents' pods alone.
func agentChanges(namespace string) predicate.Predicate {
	isAgent := predicate.NewPredicateFuncs(func(object client.Object) bool { return agents.Is(object.(*corev1.Pod), namespace) })
	changed := updates(func(before, after *corev1.Pod) bool {
		return agents.Ready(before) != agents.Ready(after) ||
			before.Spec.NodeName != after.Spec.NodeName ||
			agents.Is(before, namespace) != agents.Is(after, namespace)
	})
	turned := predicate.Funcs{
		CreateFunc:  func(event.CreateEvent) bool { return false },
		DeleteFunc:  func(event.DeleteEvent) bool { return false },
		GenericFunc: func(event.GenericEvent) bool { return false },
		UpdateFunc: func(e event.UpdateEvent) bool {
			return agents.Is(e.ObjectOld.(*corev1.Pod), namespace)
		},
	}
	return predicate.And(predicate.Or(isAgent, turned), changed)
}

// reportChanges leaves out what an agent reports of policies, and what this package
// writes itself.
func reportChanges() predicate.Predicate {
	return updates(func(before, after *v1alpha1.NodeEnforcement) bool {
		return isGuarded(before) != isGuarded(after) ||
			(before.Status.Agent != nil) != (after.Status.Agent != nil) ||
			!slices.EqualFunc(before.OwnerReferences, after.OwnerReferences, sameUID)
	})
}

func sameUID(a, b metav1.OwnerReference) bool { return a.UID == b.UID }
