package charts_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files")

// TestGolden shows in a review what a change of the chart does to what is installed.
// The CRDs are left out: they are compared with config/crd.
func TestGolden(t *testing.T) {
	for name, args := range map[string][]string{
		"defaults":   nil,
		"everything": {"--values", filepath.Join("testdata", "everything.yaml")},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := template(t, args...)
			require.NoError(t, err)
			var rendered strings.Builder
			for part := range strings.SplitSeq(strings.TrimPrefix(out, "---\n"), "\n---\n") {
				if !strings.Contains(part, "# Source: moat/templates/crds.yaml") {
					rendered.WriteString("---\n" + strings.TrimSpace(part) + "\n")
				}
			}
			golden := filepath.Join("testdata", name+".golden.yaml")
			if *update {
				require.NoError(t, os.WriteFile(golden, []byte(rendered.String()), 0o644))
			}
			want, err := os.ReadFile(golden)
			require.NoError(t, err)
			if diff := cmp.Diff(string(want), rendered.String()); diff != "" {
				t.Errorf("if this is meant: go test ./charts -run TestGolden -update\n%s", diff)
			}
		})
	}
}
