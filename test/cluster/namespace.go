package cluster

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// DeleteNamespace removes a namespace with all that is in it, which in a whole
// cluster the controller manager does: contents first, then the finalizer.
func (c *Cluster) DeleteNamespace(t testing.TB, name string) {
	t.Helper()
	ctx := t.Context()
	namespace := &corev1.Namespace{}
	require.NoError(t, c.Client.Get(ctx, types.NamespacedName{Name: name}, namespace))
	require.NoError(t, c.Client.Delete(ctx, namespace))
	for _, pod := range c.podsOf(name) {
		c.DeletePod(t, name, pod)
	}
	for _, kind := range []client.Object{&networkingv1.NetworkPolicy{}, &corev1.Service{}, &discoveryv1.EndpointSlice{}} {
		require.NoError(t, c.Client.DeleteAllOf(ctx, kind, client.InNamespace(name)))
	}
	require.NoError(t, c.Client.Get(ctx, types.NamespacedName{Name: name}, namespace))
	namespace.Spec.Finalizers = nil
	require.NoError(t, c.Client.SubResource("finalize").Update(ctx, namespace))
}

func (c *Cluster) podsOf(namespace string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for key := range c.pods {
		if key.Namespace == namespace {
			names = append(names, key.Name)
		}
	}
	return names
}
