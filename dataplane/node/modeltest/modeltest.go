// Package modeltest tells a model of API objects as an agent's informers do. It doesn't import
// package node, so that the tests of that package can use it.
package modeltest

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Model is what an informer tells of objects: node.Model.
type Model interface {
	SetPod(pod *policy.Pod)
	DeletePod(key types.NamespacedName)
	SetNamespace(n *policy.Namespace)
	DeleteNamespace(key types.NamespacedName)
	SetPolicy(p *policy.Policy)
	DeletePolicy(key types.NamespacedName)
}

// See tells the model of a pod, namespace or policy.
func See(m Model, object client.Object) {
	switch o := object.(type) {
	case *corev1.Pod:
		m.SetPod(policy.ParsePod(o))
	case *corev1.Namespace:
		m.SetNamespace(&policy.Namespace{Name: o.Name, Labels: o.Labels})
	case *networkingv1.NetworkPolicy:
		m.SetPolicy(policy.ParseNetworkPolicy(o))
	}
}

// Lose tells the model that such an object has gone.
func Lose(m Model, object client.Object) {
	key := client.ObjectKeyFromObject(object)
	switch object.(type) {
	case *corev1.Pod:
		m.DeletePod(key)
	case *corev1.Namespace:
		m.DeleteNamespace(key)
	case *networkingv1.NetworkPolicy:
		m.DeletePolicy(key)
	}
}
