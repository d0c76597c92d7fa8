package bench

import (
	"os"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/moat-dev/moat/test/bench/results"
)

// jsonVariable names the file that a run of the benchmark writes. Without it the
// benchmark doesn't run.
const jsonVariable = "MOAT_BENCH_JSON"

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

func TestBench(t *testing.T) {
	path := os.Getenv(jsonVariable)
	if path == "" {
		t.Skip(jsonVariable + " is not set: run make bench")
	}
	o, err := newOptions()
	require.NoError(t, err)
	report := &results.Report{Started: started, Machine: thisMachine(t)}
	// What was measured is kept, whatever comes after it.
	defer func() {
		require.NoError(t, report.Write(path))
		require.NoError(t, report.Print(os.Stdout))
	}()
	if o.has(partCosts) || o.has(partDelays) || o.has(partStandIn) {
		t.Run("scenarios", func(t *testing.T) {
			o.measureScenarios(t, report)
		})
	}
	if o.hostile > 0 {
		t.Run("hostile", func(t *testing.T) { o.measureHostile(t, sizes[small], report) })
	}
	if o.has(partTraffic) {
		t.Run("traffic", func(t *testing.T) { report.Traffic = o.measureTraffic(t) })
	}
	if o.has(partCosts) && o.has(partDelays) {
		for i := 1; i < len(report.Scenarios); i++ {
			requireConstantCalls(t, &report.Scenarios[0], &report.Scenarios[i])
		}
	}
}

// measureScenarios measures all clusters: each by itself first, then the delays of all of
// them in turn, since those are compared.
func (o *options) measureScenarios(t *testing.T, report *results.Report) {
	t.Helper()
	var scenes []*scene
	for i, s := range o.sizes {
		say("scenario %s: %d pods in %d namespaces, %d policies, %d local pods",
			o.scenarios[i], s.namespaces*s.pods, s.namespaces, s.namespaces*s.policies, s.local)
		sc := newScene(t, o, s)
		scenes = append(scenes, sc)
		report.Scenarios = append(report.Scenarios, results.Scenario{
			Name: o.scenarios[i], Namespaces: s.namespaces, Pods: s.pods, Policies: s.policies, Local: s.local, Backend: string(o.backend),
		})
		figures := &report.Scenarios[i].Figures
		add := func(more []results.Figure) { *figures = append(*figures, more...) }
		add(sc.measureStart(t))
		if o.has(partCosts) {
			add(sc.measureIdle(t))
		}
		if o.has(partDelays) {
			add(sc.measurePods(t))
		}
		if o.has(partCosts) {
			add(sc.measureChurn(t))
		}
		if o.has(partStandIn) {
			add(sc.measureStandIn(t))
		}
	}
	if !o.has(partDelays) {
		return
	}
	for i, figures := range o.measureDelays(t, scenes) {
		report.Scenarios[i].Figures = append(report.Scenarios[i].Figures, figures...)
	}
}
