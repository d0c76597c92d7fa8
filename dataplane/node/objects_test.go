package node

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/policy"
)

// See and lose tell the model of objects as the informers do.
func (m *Model) see(object client.Object) {
	switch o := object.(type) {
	case *corev1.Pod:
		m.SetPod(policy.ParsePod(o))
	case *corev1.Namespace:
		m.SetNamespace(&policy.Namespace{Name: o.Name, Labels: o.Labels})
	case *networkingv1.NetworkPolicy:
		m.SetPolicy(policy.ParseNetworkPolicy(o))
	}
}

func (m *Model) lose(object client.Object) {
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
