package appisolation

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

var update = flag.Bool("update", false, "write the golden files of this package")

// TestCompileGolden holds what each AppIsolation of testdata becomes.
func TestCompileGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".in.yaml"), func(t *testing.T) {
			policy := desiredPolicy(readApp(t, input))
			policy.SetGroupVersionKind(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"))
			compiled, err := yaml.Marshal(policy)
			require.NoError(t, err)

			golden := strings.TrimSuffix(input, ".in.yaml") + ".out.yaml"
			if *update {
				require.NoError(t, os.WriteFile(golden, compiled, 0o644))
			}
			expected, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(string(expected), string(compiled)), "go test ./controllers/appisolation -update accepts this")
		})
	}
}

// TestWalkThroughMeansTheSame compares the sample AppIsolation with the
// hand-written policy beside it.
func TestWalkThroughMeansTheSame(t *testing.T) {
	text, err := os.ReadFile("../../config/samples/networkpolicy.yaml")
	require.NoError(t, err)
	var handWritten networkingv1.NetworkPolicy
	require.NoError(t, yaml.UnmarshalStrict(text, &handWritten))

	compiled := compile(&readApp(t, "../../config/samples/appisolation.yaml").Spec)
	// A peer that names namespaces alone is written with an empty podSelector.
	compiled.Ingress[0].From[1].PodSelector = nil
	require.Empty(t, cmp.Diff(handWritten.Spec, compiled))
}

// TestReadmeShowsTheWalkThrough keeps the README's example what the samples are.
func TestReadmeShowsTheWalkThrough(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), "```yaml\n")
	require.True(t, found)
	example, _, _ := strings.Cut(rest, "```")
	app := &v1alpha1.AppIsolation{}
	require.NoError(t, yaml.UnmarshalStrict([]byte(example), app))
	require.Empty(t, cmp.Diff(readApp(t, "../../config/samples/appisolation.yaml"), app))
}

// TestUnknownEntityIsNotWider: a newer API may know more entities.
func TestUnknownEntityIsNotWider(t *testing.T) {
	peers := compilePeers([]v1alpha1.Peer{{Entity: "Internet"}})
	require.Equal(t, []networkingv1.NetworkPolicyPeer{{}}, peers, "an empty peer is refused by the API server; no peer at all would allow everyone")
}

func TestCompileSharesNothing(t *testing.T) {
	app := readApp(t, "testdata/walk-through.in.yaml")
	before := app.DeepCopy()
	policy := desiredPolicy(app)
	policy.Spec.PodSelector.MatchLabels["role"] = "other"
	policy.Spec.Ingress[0].From[0].IPBlock.Except[0] = "0.0.0.0/0"
	require.Empty(t, cmp.Diff(before, app))
}

func readApp(t *testing.T, path string) *v1alpha1.AppIsolation {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	app := &v1alpha1.AppIsolation{}
	require.NoError(t, yaml.UnmarshalStrict(text, app))
	return app
}
