package charts_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/budget"
)

// The values name the defaults, the schema the ceilings, and the documents both.
func TestBudgetsAreThoseOfTheAgent(t *testing.T) {
	values, err := os.ReadFile(filepath.Join(chart, "values.yaml"))
	require.NoError(t, err)
	document, err := os.ReadFile(filepath.Join("..", "docs", "design", "budgets.md"))
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	require.NoError(t, err)
	type node struct {
		Properties map[string]*node `json:"properties"`
		Maximum    int              `json:"maximum"`
	}
	var schema node
	require.NoError(t, json.Unmarshal(text, &schema))
	limits, most := budget.Defaults(), budget.Ceilings()
	for r := range budget.Resources {
		for scope, of := range map[string][2]budget.Amounts{
			"policy": {limits.Policy, most.Policy}, "namespace": {limits.Namespace, most.Namespace}, "node": {limits.Node, most.Node},
		} {
			require.Equal(t, of[1][r], schema.Properties["agent"].Properties["budgets"].Properties[scope].Properties[r.String()].Maximum, "%s of %s", r, scope)
			require.Contains(t, string(values), fmt.Sprintf("%s: %d", r, of[0][r]), scope)
		}
		row := fmt.Sprintf(" | %s | %s | %s |\n", grouped(limits.Policy[r]), grouped(limits.Namespace[r]), grouped(limits.Node[r]))
		require.Contains(t, string(document), row, r)
		row = fmt.Sprintf("| %s | %s | %s | %s |\n", r, grouped(most.Policy[r]), grouped(most.Namespace[r]), grouped(most.Node[r]))
		require.Contains(t, string(document), row, r)
	}
}

// grouped writes a number as documents do.
func grouped(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s,%03d", grouped(n/1000), n%1000)
}

// By the age of this object agents tell an install with budgets from an upgrade to them,
// so chart and config make the same one.
func TestTheMarkerOfBudgets(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "config", "agent", "budgets.yaml"))
	require.NoError(t, err)
	var installed corev1.ConfigMap
	require.NoError(t, yaml.Unmarshal(text, &installed))
	rendered := decode[corev1.ConfigMap](t, render(t), "ConfigMap/moat-budgets")
	require.Equal(t, installed.Data, rendered.Data)
	require.Equal(t, installed.Name, rendered.Name)
	require.Equal(t, installed.Namespace, rendered.Namespace)
}
