// Package isolationtest reads what tests compile: AppIsolations, and the world that they
// refer to.
package isolationtest

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
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
)

// World returns what a file holds: objects in YAML, with a line of dashes between them.
func World(t testing.TB, path string) isolation.World {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	w := isolation.World{Services: map[types.NamespacedName]isolation.Service{}}
	slices := map[types.NamespacedName][]discoveryv1.EndpointSlice{}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var head metav1.PartialObjectMetadata
		require.NoError(t, yaml.Unmarshal([]byte(document), &head))
		key := types.NamespacedName{Namespace: head.Namespace, Name: head.Name}
		switch head.Kind {
		case "IsolationConfig":
			w.Config = &decode[v1alpha1.IsolationConfig](t, document).Spec
		case "Node":
			w.Nodes = append(w.Nodes, *decode[corev1.Node](t, document))
		case "Service":
			w.Services[key] = isolation.Service{Object: decode[corev1.Service](t, document)}
		case "EndpointSlice":
			key.Name = head.Labels[discoveryv1.LabelServiceName]
			slices[key] = append(slices[key], *decode[discoveryv1.EndpointSlice](t, document))
		default:
			require.FailNow(t, "unknown kind "+head.Kind)
		}
	}
	for key, found := range w.Services {
		w.Services[key] = isolation.Service{Object: found.Object, Slices: slices[key]}
	}
	w.APIServer = slices[isolation.APIServerSlice]
	return w
}

func decode[T any](t testing.TB, document string) *T {
	t.Helper()
	var object T
	require.NoError(t, yaml.UnmarshalStrict([]byte(document), &object))
	return &object
}

// App returns the AppIsolation that a file holds.
func App(t testing.TB, path string) *v1alpha1.AppIsolation {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return decode[v1alpha1.AppIsolation](t, string(text))
}
