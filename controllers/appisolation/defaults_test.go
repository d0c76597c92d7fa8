package appisolation

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// The first start of an operator makes the IsolationConfig; later ones leave it as it
// is.
func TestEnsureConfig(t *testing.T) {
	admin := server.Admin(t)
	operator, err := client.New(server.Operator(t), client.Options{Scheme: admin.Scheme()})
	require.NoError(t, err)
	key := client.ObjectKey{Name: v1alpha1.IsolationConfigName}
	config := &v1alpha1.IsolationConfig{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.IsolationConfigName}}
	require.NoError(t, client.IgnoreNotFound(admin.Delete(t.Context(), config)))
	t.Cleanup(func() { require.NoError(t, client.IgnoreNotFound(admin.Delete(context.Background(), config))) })

	require.NoError(t, EnsureConfig(operator)(t.Context()))
	require.NoError(t, admin.Get(t.Context(), key, config))
	require.EqualValues(t, "kube-dns", config.Spec.DNS.Peers[0].App.MatchLabels["k8s-app"])
	require.Empty(t, config.Spec.Monitoring)

	config.Spec.DNS = nil
	require.NoError(t, admin.Update(t.Context(), config))
	require.NoError(t, EnsureConfig(operator)(t.Context()))
	require.NoError(t, admin.Get(t.Context(), key, config))
	require.Nil(t, config.Spec.DNS)
}
