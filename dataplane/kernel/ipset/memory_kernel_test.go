package ipset_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// MOAT_MEASURE=1 go test ./dataplane/kernel/ipset -v -run TestWhatSmallSetsTake. Beside what
// TestASmallSetIsSmall knows from the kernel's word, a set has parts that no listing counts. So
// thousands of sets of one pod are made, and the memory that the kernel then has less of is
// divided by their number. Other programs take and give memory at the same time: the median of
// several rounds counts.
func TestWhatSmallSetsTake(t *testing.T) {
	if os.Getenv("MOAT_MEASURE") == "" {
		t.Skip("measures the memory of the whole machine: MOAT_MEASURE=1 runs it")
	}
	const rounds, sets = 7, 1500
	for _, family := range ruleset.Families() {
		for _, kind := range []ruleset.SetType{ruleset.HashIP, ruleset.HashIPPort} {
			taken := map[string][]int{}
			inKernel(t, func(k *ipset.Kernel) {
				for round := range rounds {
					want := ipset.State{}
					for i := range sets {
						name := fmt.Sprintf("moat-%d-%d", round, i)
						want[name] = ofSize(name, kind, family, 1)
					}
					plan := ipset.Diff(nil, want)
					before := kernelMemory(t)
					require.NoError(t, k.Grow(&plan))
					after := kernelMemory(t)
					taken["slabs"] = append(taken["slabs"], (after["SUnreclaim"]-before["SUnreclaim"])/sets)
					taken["available"] = append(taken["available"], (before["MemAvailable"]-after["MemAvailable"])/sets)
				}
			})
			for _, bytes := range taken {
				slices.Sort(bytes)
			}
			t.Logf("%s %s: bytes a set, by slabs %v, by available memory %v", family, kind, taken["slabs"], taken["available"])
			require.Less(t, taken["slabs"][rounds/2], 2<<10)
		}
	}
}

// kernelMemory returns the lines of /proc/meminfo in bytes.
func kernelMemory(t *testing.T) map[string]int {
	t.Helper()
	text, err := os.ReadFile("/proc/meminfo")
	require.NoError(t, err)
	lines := map[string]int{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		var kilobytes int
		_, err := fmt.Sscan(rest, &kilobytes)
		require.NoError(t, err, line)
		lines[name] = kilobytes << 10
	}
	return lines
}
