package charts_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// The API server takes each object that the chart renders as it is: no field is unknown,
// no list names something twice, no value is out of its range.
func TestTheAPIServerTakesWhatIsRendered(t *testing.T) {
	const release = "release"
	admin := server.Admin(t)
	err := admin.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: release}})
	require.True(t, err == nil || apierrors.IsAlreadyExists(err), "%v", err)
	for name, args := range map[string][]string{"defaults": nil, "everything": {"--values", "testdata/everything.yaml"}} {
		objects := render(t, append(args, "--namespace", release)...)
		require.Greater(t, len(objects), 30)
		for key, o := range objects {
			if strings.HasPrefix(key, "PodMonitor/") || strings.HasPrefix(key, "PrometheusRule/") {
				continue // of CRDs that this server doesn't have
			}
			rendered := &unstructured.Unstructured{}
			require.NoError(t, yaml.Unmarshal([]byte(o.text), &rendered.Object))
			err := admin.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(rendered),
				client.DryRunAll, client.ForceOwnership, client.FieldOwner("helm"))
			require.NoError(t, err, "%s: %s", name, key)
		}
	}
}
