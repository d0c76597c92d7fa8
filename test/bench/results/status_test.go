package results

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func exampleStatus() *Status {
	app, policy := StatusKinds[appIsolation], StatusWideKinds[networkPolicy]
	return &Status{
		Machine: Machine{CPU: "Test", Cores: 2, Memory: 4096, Kernel: "6.1"}, Scenario: Fleet, Nodes: 5000, Namespaces: 100, Policies: 2000, Pods: 55000,
		Figures: []Figure{
			{Kind: app.Enforced, Value: 500, P90: 3001, Max: 4000, N: 20},
			Number(app.PolicyWrites, 1), Number(app.StatusWrites, 2.05), Number(app.AgentWrites, 1),
			Number(policy.PolicyWrites, 0), Number(policy.StatusWrites, 7),
			Number(StatusMemory, 499), Number(StatusPeak, 501),
		},
	}
}

func TestTheTableOfStatusJudgesEachTarget(t *testing.T) {
	met := map[string]string{}
	for _, row := range exampleStatus().Rows() {
		require.Equal(t, Fleet, row.Scenario)
		met[row.What] = row.Met
	}
	require.Equal(t, map[string]string{
		"AppIsolation changed → Enforced":                                                             "NO",
		"AppIsolation changed: writes of the NetworkPolicy by the operator":                           "yes",
		"AppIsolation changed: writes of the status":                                                  "NO",
		"AppIsolation changed: writes by each agent concerned":                                        "yes",
		"hand-written policy changed, pods on all nodes: writes of the NetworkPolicy by the operator": "yes",
		"hand-written policy changed, pods on all nodes: writes of the status":                        "",
		"operator's memory (VmRSS) after start":                                                       "yes",
		"peak of the operator's memory (VmHWM)":                                                       "NO",
	}, met)
}

func TestTargetsOfStatusAreOfKnownKinds(t *testing.T) {
	known := map[string]bool{}
	for _, k := range statusKinds {
		require.False(t, known[k.id], k.id)
		known[k.id] = true
	}
	for _, target := range statusTargets {
		require.True(t, known[target.kind], target.kind)
	}
}

func TestAReportOfStatusIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "status.json")
	require.NoError(t, exampleStatus().Write(path))
	read, err := ReadStatus(path)
	require.NoError(t, err)
	require.Equal(t, exampleStatus(), read)
	document, err := read.Insert("before\n" + statusBegin + "old\n" + statusEnd + "after\n")
	require.NoError(t, err)
	require.Contains(t, document, "| 5k | operator's memory (VmRSS) after start | 499 MB | ≤ 500 | yes |")
	require.NotContains(t, document, "old")
}
