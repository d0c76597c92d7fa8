package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// The programs take the arguments that config and the chart give them. What the chart
// renders, the golden files are compared with.
func TestProgramsTakeTheArgumentsOfTheManifests(t *testing.T) {
	t.Setenv("NODE_NAME", "node-1")
	t.Setenv("POD_NAMESPACE", "moat-system")
	seen := map[string]int{}
	for _, pattern := range []string{"../../charts/testdata/*.golden.yaml", "../../config/agent/agent.yaml", "../../config/manager/operator.yaml"} {
		files, err := filepath.Glob(pattern)
		require.NoError(t, err)
		require.NotEmpty(t, files, pattern)
		for _, file := range files {
			for _, args := range containerArgs(t, file) {
				var flags *flag.FlagSet
				var validate func() error
				switch args[0] {
				case "agent":
					own, options := agentFlags()
					flags, validate = own, options.validate
				case "operator":
					own, options := operatorFlags()
					flags, validate = own, options.validate
				default:
					continue
				}
				require.NoError(t, parseFlags(flags, args[1:]), file)
				require.NoError(t, validate(), file)
				seen[args[0]]++
			}
		}
	}
	require.Equal(t, map[string]int{"agent": 3, "operator": 3}, seen)
}

// containerArgs returns the arguments of each container of the DaemonSets and Deployments
// in a file.
func containerArgs(t *testing.T, file string) (all [][]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var workload struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct{ Containers []struct{ Args []string } }
				}
			}
		}
		require.NoError(t, yaml.Unmarshal([]byte(document), &workload), file)
		if workload.Kind != "DaemonSet" && workload.Kind != "Deployment" {
			continue
		}
		for _, container := range workload.Spec.Template.Spec.Containers {
			all = append(all, container.Args)
		}
	}
	return all
}
