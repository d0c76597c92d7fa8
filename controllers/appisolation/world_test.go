package appisolation

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// testWorld returns what testdata/world.yaml holds.
func testWorld(t *testing.T) world {
	t.Helper()
	text, err := os.ReadFile("testdata/world.yaml")
	require.NoError(t, err)
	w := world{services: map[types.NamespacedName]service{}}
	slices := map[types.NamespacedName][]discoveryv1.EndpointSlice{}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var head metav1.PartialObjectMetadata
		require.NoError(t, yaml.Unmarshal([]byte(document), &head))
		key := types.NamespacedName{Namespace: head.Namespace, Name: head.Name}
		switch head.Kind {
		case "IsolationConfig":
			w.config = &decode[v1alpha1.IsolationConfig](t, document).Spec
		case "Node":
			w.nodes = append(w.nodes, *decode[corev1.Node](t, document))
		case "Service":
			w.services[key] = service{object: decode[corev1.Service](t, document)}
		case "EndpointSlice":
			key.Name = head.Labels[discoveryv1.LabelServiceName]
			slices[key] = append(slices[key], *decode[discoveryv1.EndpointSlice](t, document))
		default:
			require.FailNow(t, "unknown kind "+head.Kind)
		}
	}
	for key, found := range w.services {
		w.services[key] = service{object: found.object, slices: slices[key]}
	}
	w.apiServer = slices[apiServerSlice]
	return w
}

func decode[T any](t *testing.T, document string) *T {
	t.Helper()
	var object T
	require.NoError(t, yaml.UnmarshalStrict([]byte(document), &object))
	return &object
}
