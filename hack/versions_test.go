package hack

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// The workshop compiles the libraries that the product is compiled from: one build cache
// and one look at a module's changes serve both.
func TestVersionsAreTheProducts(t *testing.T) {
	product, own := required(t, "../go.mod"), required(t, "go.mod")
	require.NotEmpty(t, own)
	for module, version := range own {
		if wanted, both := product[module]; both {
			require.Equal(t, wanted, version, module)
		}
	}
}

// required are the modules of a go.mod and their versions.
func required(t *testing.T, file string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	versions := map[string]string{}
	for _, line := range regexp.MustCompile(`(?m)^\t(\S+) (v\S+)`).FindAllStringSubmatch(string(text), -1) {
		versions[line[1]] = line[2]
	}
	return versions
}
