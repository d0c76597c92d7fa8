package roads

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/test/junit"
)

// What the suite is told by its environment; see hack/roads.sh.
const (
	// resultsVariable names the folder for results. Without it the cluster isn't touched.
	resultsVariable = "MOAT_ROADS"
	quickVariable   = "QUICK"
	// onlyVariable has words of names: only those roads are played.
	onlyVariable = "ROADS"
)

// TestRoads plays the roads, one after the other, on one cluster.
func TestRoads(t *testing.T) {
	results := os.Getenv(resultsVariable)
	if results == "" {
		t.Skip("the local cluster is used by: make roads")
	}
	t.Chdir(filepath.Join("..", ".."))
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	begun := time.Now()
	chosen := choose(roads, os.Getenv(quickVariable) != "", strings.Split(os.Getenv(onlyVariable), ","))
	require.NotEmpty(t, chosen, "no road has a name like %s", os.Getenv(onlyVariable))
	scene := newScene(ctx, t, chosen)
	seen := make([]result, len(chosen))
	for i, road := range chosen {
		if ctx.Err() != nil {
			break
		}
		file, err := os.Create(filepath.Join(results, fmt.Sprintf("%02d.log", i+1)))
		require.NoError(t, err)
		scene.say("%s", road.name)
		t.Run(road.name, func(t *testing.T) {
			scene.travel(t, road, file, &seen[i])
			require.Emptyf(t, seen[i].faults, "see %s", file.Name())
		})
		require.NoError(t, file.Close())
		scene.say("  %s", seen[i])
	}
	scene.removeMoat()
	printTable(chosen, seen, time.Since(begun))
	report(t, filepath.Join(results, "junit.xml"), chosen, seen)
}

// choose returns the roads to play.
func choose(all []road, quick bool, words []string) []road {
	var chosen []road
	for _, r := range all {
		for _, word := range words {
			if (r.quick || !quick) && strings.Contains(r.name, strings.TrimSpace(word)) {
				chosen = append(chosen, r)
				break
			}
		}
	}
	return chosen
}

// String is one cell of the table that is printed.
func (r result) String() string {
	switch {
	case r.took == 0:
		return "not played"
	case len(r.faults) > 0:
		return fmt.Sprintf("WRONG: %s (%.0f s)", strings.Join(r.faults, "; "), r.took.Seconds())
	}
	return fmt.Sprintf("as it shall be: nodes within %.0f s, new pods within %.1f s (%.0f s)", r.settled.Seconds(), r.network.Seconds(), r.took.Seconds())
}

func printTable(chosen []road, seen []result, took time.Duration) {
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(table, "\nROAD\tRULES\tISOLATED POD\tNEW POD\tSEEN")
	leaked, lost, wrong := 0, 0, 0
	for i, r := range chosen {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", r.name, r.outcome.rules, r.outcome.isolated, r.outcome.newPod, seen[i])
		leaked, lost = leaked+seen[i].leaked, lost+seen[i].lost
		if len(seen[i].faults) > 0 || seen[i].took == 0 {
			wrong++
		}
	}
	_ = table.Flush()
	fmt.Printf("\n%d roads, %d wrong, %d pings leaked, %d lost, in %.0f s\n", len(chosen), wrong, leaked, lost, took.Seconds())
}

func report(t *testing.T, file string, chosen []road, seen []result) {
	t.Helper()
	suite := junit.Suite{Name: "roads"}
	for i, r := range chosen {
		suite.Add(r.name, seen[i].took, strings.Join(seen[i].faults, "\n"), "")
	}
	require.NoError(t, junit.Write(file, []junit.Suite{suite}))
}
