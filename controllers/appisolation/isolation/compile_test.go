package isolation_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
	"github.com/moat-dev/moat/controllers/appisolation/isolation/isolationtest"
)

var update = flag.Bool("update", false, "write the golden files of this package")

func testWorld(t *testing.T) isolation.World { return isolationtest.World(t, "testdata/world.yaml") }

// TestCompileGolden holds what each AppIsolation of testdata becomes in the world
// of testdata/world.yaml, and what it names that isn't there.
func TestCompileGolden(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, inputs)
	for _, input := range inputs {
		t.Run(strings.TrimSuffix(filepath.Base(input), ".in.yaml"), func(t *testing.T) {
			compiled := compiledText(t, isolationtest.App(t, input), testWorld(t))

			golden := strings.TrimSuffix(input, ".in.yaml") + ".out.yaml"
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(compiled), 0o644))
			}
			expected, err := os.ReadFile(golden)
			require.NoError(t, err)
			require.Empty(t, cmp.Diff(string(expected), compiled), "go test ./controllers/appisolation/isolation -update accepts this")
		})
	}
}

// compiledText returns the policy as YAML, below a line for each problem.
func compiledText(t *testing.T, app *v1alpha1.AppIsolation, w isolation.World) string {
	t.Helper()
	policy, problems := isolation.Policy(app, w)
	policy.SetGroupVersionKind(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"))
	compiled, err := yaml.Marshal(policy)
	require.NoError(t, err)
	var text strings.Builder
	for _, p := range problems {
		text.WriteString("# " + p.Reason + ": " + p.Message + "\n")
	}
	return text.String() + string(compiled)
}

// TestWalkThroughMeansTheSame compares the sample AppIsolation with the
// hand-written policy beside it.
func TestWalkThroughMeansTheSame(t *testing.T) {
	text, err := os.ReadFile("../../../config/samples/networkpolicy.yaml")
	require.NoError(t, err)
	var handWritten networkingv1.NetworkPolicy
	require.NoError(t, yaml.UnmarshalStrict(text, &handWritten))

	compiled, _, problems := isolation.Compile(isolationtest.App(t, "../../../config/samples/appisolation.yaml"), isolation.World{})
	require.Empty(t, problems, "it needs no IsolationConfig")
	// A peer that names namespaces alone is written with an empty podSelector.
	compiled.Ingress[0].From[1].PodSelector = nil
	require.Empty(t, cmp.Diff(handWritten.Spec, compiled))
}

// TestReadmeShowsWhatItApplies keeps the README's example what the file is.
func TestReadmeShowsWhatItApplies(t *testing.T) {
	text, err := os.ReadFile("../../../README.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(text), "```yaml\n")
	require.True(t, found)
	example, _, _ := strings.Cut(rest, "```")
	app := &v1alpha1.AppIsolation{}
	require.NoError(t, yaml.UnmarshalStrict([]byte(example), app))
	require.Empty(t, cmp.Diff(isolationtest.App(t, "../../../config/samples/tutorial/db.yaml"), app))
}

// TestUnknownPeerIsNotWider: a newer CRD may know more peers than this compiler.
func TestUnknownPeerIsNotWider(t *testing.T) {
	for name, peer := range map[string]v1alpha1.Peer{"entity": {Entity: "Friends"}, "member": {}} {
		t.Run(name, func(t *testing.T) {
			app := isolationtest.App(t, "testdata/walk-through.in.yaml")
			app.Spec.Ingress[0].From, app.Spec.Egress[0].To = []v1alpha1.Peer{peer}, []v1alpha1.Peer{peer}
			policy, _, problems := isolation.Compile(app, testWorld(t))
			require.Len(t, policy.Ingress, 1, "the rule is left out: without peers it would allow everyone")
			require.Len(t, policy.Egress, 1, "DNS alone")
			require.Len(t, problems, 2)
			require.Equal(t, v1alpha1.ReasonEntityNotConfigured, problems[0].Reason)
		})
	}
}

// TestWithoutConfig: entities that the IsolationConfig would explain allow nothing,
// the others what they always do.
func TestWithoutConfig(t *testing.T) {
	w := testWorld(t)
	w.Config = nil
	policy, _, problems := isolation.Compile(isolationtest.App(t, "testdata/cluster-entities.in.yaml"), w)
	require.Len(t, policy.Ingress, 1, "KubeAPIServer")
	require.Len(t, policy.Egress, 1, "KubeAPIServer")
	require.Len(t, problems, 8)
	w.APIServer = nil
	policy, _, problems = isolation.Compile(isolationtest.App(t, "testdata/cluster-entities.in.yaml"), w)
	require.Empty(t, policy.Ingress)
	require.Empty(t, policy.Egress)
	require.Len(t, problems, 10)
}

// TestAnAPIServersAddressThatTwoNodesClaim: it is unknown which of them runs it, so the
// tunnel of neither counts, and the AppIsolation says so. One Node may claim it twice.
func TestAnAPIServersAddressThatTwoNodesClaim(t *testing.T) {
	app := isolationtest.App(t, "testdata/cluster-entities.in.yaml")
	tunnels := func(w isolation.World) (string, []isolation.Problem) {
		policy, _, problems := isolation.Compile(app, w)
		text, err := yaml.Marshal(policy.Ingress)
		require.NoError(t, err)
		return string(text), problems
	}
	w := testWorld(t)
	w.Config = nil // or the tunnels come with other entities too
	server := w.Nodes[1].Status.Addresses[0]
	require.Equal(t, "192.168.7.11", server.Address)
	w.Nodes[1].Status.Addresses = append(w.Nodes[1].Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: server.Address})
	text, before := tunnels(w)
	require.Contains(t, text, "10.244.0.0/32")
	require.NotContains(t, text, "10.244.1.0/32")

	w.Nodes[0].Status.Addresses = append(w.Nodes[0].Status.Addresses, server)
	text, problems := tunnels(w)
	require.NotContains(t, text, "10.244.0.0/32")
	require.NotContains(t, text, "10.244.1.0/32")
	require.Contains(t, text, "192.168.7.11/32", "the API server's own address stays")
	require.Len(t, problems, len(before)+1)
	require.True(t, slices.ContainsFunc(problems, func(p isolation.Problem) bool {
		return strings.Contains(p.Message, "Nodes node-1 and node-2 both have the API server's address 192.168.7.11")
	}), problems)
}

// TestOrderOfTheWorldDoesNotMatter: caches list objects in any order.
func TestOrderOfTheWorldDoesNotMatter(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	require.NoError(t, err)
	for _, input := range inputs {
		w, reversed := testWorld(t), testWorld(t)
		slices.Reverse(reversed.Nodes)
		slices.Reverse(reversed.APIServer)
		for _, found := range reversed.Services {
			slices.Reverse(found.Slices)
			for i := range found.Slices {
				slices.Reverse(found.Slices[i].Endpoints)
				slices.Reverse(found.Slices[i].Ports)
			}
		}
		app := isolationtest.App(t, input)
		require.Empty(t, cmp.Diff(compiledText(t, app, w), compiledText(t, app, reversed)), input)
	}
}

func TestCompileSharesNothing(t *testing.T) {
	app := isolationtest.App(t, "testdata/walk-through.in.yaml")
	before := app.DeepCopy()
	policy, _ := isolation.Policy(app, testWorld(t))
	policy.Spec.PodSelector.MatchLabels["role"] = "other"
	policy.Spec.Ingress[0].From[0].IPBlock.Except[0] = "0.0.0.0/0"
	require.Empty(t, cmp.Diff(before, app))
}
