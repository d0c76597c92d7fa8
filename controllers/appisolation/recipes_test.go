package appisolation

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
	"github.com/moat-dev/moat/controllers/appisolation/isolation/isolationtest"
)

const recipes = "../../config/samples/recipes/"

func recipeFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(recipes + "*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

// handWrittenRecipe returns the policy of testdata/recipes that a recipe stands
// for, which is written by hand.
func handWrittenRecipe(t *testing.T, file string) networkingv1.NetworkPolicySpec {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("isolation", "testdata", "recipes", filepath.Base(file)))
	require.NoError(t, err)
	var spec networkingv1.NetworkPolicySpec
	require.NoError(t, yaml.UnmarshalStrict(text, &spec))
	return spec
}

// TestRecipesMeanTheSame compares each recipe with the policy that it stands for.
func TestRecipesMeanTheSame(t *testing.T) {
	for _, file := range recipeFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			compiled, _, problems := isolation.Compile(isolationtest.App(t, file), isolation.World{})
			require.Empty(t, problems, "it needs no IsolationConfig")
			require.Empty(t, cmp.Diff(handWrittenRecipe(t, file), compiled))
		})
	}
}

// TestRecipesAreAccepted applies each to an API server.
func TestRecipesAreAccepted(t *testing.T) {
	f := newFixture(t)
	for _, file := range recipeFiles(t) {
		app := isolationtest.App(t, file)
		app.Namespace = f.key.Namespace
		require.NoError(t, f.admin.Create(t.Context(), app, client.FieldValidation("Strict")), file)
	}
	for _, file := range recipeFiles(t) {
		name := isolationtest.App(t, file).Name
		policy := &networkingv1.NetworkPolicy{}
		f.eventually(func() bool {
			return f.admin.Get(t.Context(), client.ObjectKey{Namespace: f.key.Namespace, Name: isolation.NamePrefix + name}, policy) == nil
		}, "the policy of "+name)
		require.Empty(t, cmp.Diff(handWrittenRecipe(t, file), policy.Spec), name)
	}
}

// TestRecipesAreListed keeps their README complete.
func TestRecipesAreListed(t *testing.T) {
	text, err := os.ReadFile(recipes + "README.md")
	require.NoError(t, err)
	names := map[string]bool{}
	for _, file := range recipeFiles(t) {
		require.Contains(t, string(text), "]("+filepath.Base(file)+")")
		app := isolationtest.App(t, file)
		require.False(t, names[app.Name], "%s: two of that name", app.Name)
		names[app.Name] = true
		require.Equal(t, v1alpha1.GroupVersion.String(), app.APIVersion)
	}
}
