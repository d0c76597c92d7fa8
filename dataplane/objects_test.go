package dataplane

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/policy"
)

// see and lose tell the model of objects as the informers do.
func (m *model) see(object client.Object) {
	switch o := object.(type) {
	case *corev1.Pod:
		m.setPod(policy.ParsePod(o))
	case *corev1.Namespace:
		m.setNamespace(&policy.Namespace{Name: o.Name, Labels: o.Labels})
	case *networkingv1.NetworkPolicy:
		m.setPolicy(policy.ParseNetworkPolicy(o))
	}
}

func (m *model) lose(object client.Object) {
	key := client.ObjectKeyFromObject(object)
	switch object.(type) {
	case *corev1.Pod:
		m.deletePod(key)
	case *corev1.Namespace:
		m.deleteNamespace(key)
	case *networkingv1.NetworkPolicy:
		m.deletePolicy(key)
	}
}
