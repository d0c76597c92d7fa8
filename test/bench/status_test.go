package bench

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/test/bench/results"
)

// statusJSONVariable names the file that a run of the benchmark of status writes.
// Without it the benchmark doesn't run.
const statusJSONVariable = "MOAT_BENCH_STATUS_JSON"

// statusOptions are those of a run, from the environment.
type statusOptions struct {
	scenario string
	size     fleetSize
	samples  int // of changes that concern some nodes
	wide     int // of changes that concern all
	falls    int // of pods that come
	idle     time.Duration
	rest     time.Duration // between two changes
	stream   time.Duration // of changes without rest
	crowd    crowd         // none: that part is left out
	flags    []string      // of the operator, further ones
}

// restBetween lets every agent's last report be so old that it may report at once.
const restBetween = 3500 * time.Millisecond

// streamPerSecond is how many changes without rest there are per second.
const streamPerSecond = 5

func newStatusOptions() (*statusOptions, error) {
	e := &environment{}
	o := &statusOptions{
		scenario: e.text("SCENARIO", results.Fleet),
		samples:  e.number("SAMPLES", 20),
		wide:     e.number("WIDE", 5),
		falls:    e.number("FALLS", 100),
		idle:     time.Duration(e.number("IDLE", 30)) * time.Second,
		stream:   time.Duration(e.number("STREAM", 30)) * time.Second,
		rest:     restBetween,
		flags:    strings.Fields(os.Getenv("OPERATOR_FLAGS")),
	}
	known, ok := fleetSizes[o.scenario]
	if !ok {
		return nil, fmt.Errorf("SCENARIO=%s: use small or %s", o.scenario, results.Fleet)
	}
	o.size = fleetSize{
		nodes: e.number("NODES", known.nodes), namespaces: e.number("NAMESPACES", known.namespaces),
		policies: e.number("POLICIES", known.policies), pods: e.number("PODS", known.pods),
	}
	o.crowd = crowd{common: e.number("CROWD", crowds[o.scenario].common), largest: e.number("LARGEST", crowds[o.scenario].largest)}
	if o.size != known {
		o.scenario = custom
	}
	if err := o.size.validate(); err != nil {
		return nil, err
	}
	return o, e.err
}

func TestBenchStatus(t *testing.T) {
	path := os.Getenv(statusJSONVariable)
	if path == "" {
		t.Skip(statusJSONVariable + " is not set: run make bench-status")
	}
	o, err := newStatusOptions()
	require.NoError(t, err)
	r := o.newReport(t)
	// What was measured is kept, whatever comes after it.
	defer func() {
		require.NoError(t, r.Write(path))
		require.NoError(t, r.Print(os.Stdout))
	}()
	o.measure(t, r)
}

func (o *statusOptions) newReport(t testing.TB) *results.Status {
	t.Helper()
	s := o.size
	return &results.Status{
		Started: time.Now(), Machine: thisMachine(t), Scenario: o.scenario,
		Nodes: s.nodes, Namespaces: s.namespaces, Policies: s.namespaces * s.policies, Pods: s.nodes * (s.pods + 1),
	}
}

// measure fills the report.
func (o *statusOptions) measure(t testing.TB, r *results.Status) *fleet {
	t.Helper()
	say("%d nodes, %d pods, %d policies", r.Nodes, r.Pods, r.Policies)
	add := func(figures ...results.Figure) { r.Figures = append(r.Figures, figures...) }
	f := newFleet(t, o.size, o.flags)
	add(results.Number(results.StatusFill, f.start(t).Seconds()))
	add(results.Number(results.StatusStart, f.restart(t).Seconds()))

	during("leaving the operator alone after its start", nil, func() { time.Sleep(min(settleAfterStart, o.idle)) })
	memory := func(line string) float64 { return processMemory(t, f.operator.Pid(), line) }
	add(results.Number(results.StatusMemory, memory("VmRSS")))
	idle := 0.0 // cores
	during(fmt.Sprintf("leaving it alone for %s more", o.idle), nil, func() {
		before, start := cpuTime(t, f.operator.Pid()), time.Now()
		time.Sleep(o.idle)
		idle = (cpuTime(t, f.operator.Pid()) - before).Seconds() / time.Since(start).Seconds()
	})
	add(results.Number(results.StatusIdle, 100*idle))

	random := rand.New(rand.NewPCG(3, 4))
	var ordinary []subject
	for _, kind := range []kindOfPolicy{generated, handWritten} {
		var some, all []subject
		for range o.samples { // not in the first namespace, and not of all its pods
			some = append(some, subject{kind, 1 + random.IntN(o.size.namespaces-1), random.IntN(o.size.appsOf())})
		}
		if kind == generated {
			ordinary = some
		}
		for range o.wide {
			all = append(all, subject{kind, 0, 0})
		}
		add(f.measureChanges(t, results.StatusKinds[string(kind)], some, o.rest, idle)...)
		add(f.measureChanges(t, results.StatusWideKinds[string(kind)], all, o.rest, idle)...)
	}
	add(f.measureStream(t, o.stream, random, idle)...)
	add(f.measureFalls(t, o.falls, random))
	add(results.Number(results.StatusPeak, memory("VmHWM")), results.Number(results.StatusLargest, float64(f.proofs.largestStatus())))
	if o.crowd != (crowd{}) {
		quiet, _ := r.Figure(results.StatusKinds[string(generated)].Enforced)
		add(f.measureCrowd(t, o.crowd, ordinary, o.rest, quiet)...)
	}
	return f
}

// changeWithinStatus is when a change that isn't proven fails the run.
const changeWithinStatus = 5 * time.Minute

// measureChanges makes one change after the other.
func (f *fleet) measureChanges(t testing.TB, kinds results.ChangeKinds, changed []subject, rest time.Duration, idle float64) []results.Figure {
	t.Helper()
	var took []time.Duration
	nodes := 0
	spent := f.spending(t, idle, func() {
		for i, s := range changed {
			time.Sleep(rest)
			say("change %d of %d: %s", i+1, len(changed), s.proofKey())
			start := time.Now()
			generation := f.change(t, s)
			took = append(took, f.await(t, s, generation).Sub(start))
			nodes += len(f.agents.target[targetKey(namespaceName(s.namespace), s.labels())])
		}
		time.Sleep(rest) // for what is written late
	})
	n := float64(len(changed))
	return []results.Figure{
		results.Milliseconds(kinds.Enforced, took),
		results.Number(kinds.Nodes, float64(nodes)/n),
		results.Number(kinds.PolicyWrites, spent.operator["networkpolicies"]/n),
		results.Number(kinds.StatusWrites, (spent.operator["appisolations"]+spent.operator["policyenforcements"])/n),
		results.Number(kinds.Events, spent.operator["events"]/n),
		results.Number(kinds.AgentWrites, float64(spent.agents)/float64(nodes)),
		results.Number(kinds.CPU, 1000*spent.cpu/n),
	}
}

// spending is what some changes cost.
type spending struct {
	operator map[string]float64 // writes by resource
	agents   int64              // writes
	cpu      float64            // seconds of the operator, less what it takes when idle
}

func (f *fleet) spending(t testing.TB, idle float64, do func()) spending {
	t.Helper()
	before, agents := operatorWrites(f.cluster.APIServerMetrics(t)), f.agents.writes.Load()
	cpu, start := cpuTime(t, f.operator.Pid()), time.Now()
	do()
	spent := spending{
		operator: operatorWrites(f.cluster.APIServerMetrics(t)),
		agents:   f.agents.writes.Load() - agents,
		cpu:      max(0, (cpuTime(t, f.operator.Pid())-cpu).Seconds()-idle*time.Since(start).Seconds()),
	}
	for resource, count := range before {
		spent.operator[resource] -= count
	}
	return spent
}

// measureStream makes changes all the time, so that agents are kept from reporting
// by what they reported a moment ago.
func (f *fleet) measureStream(t testing.TB, duration time.Duration, random *rand.Rand, idle float64) []results.Figure {
	t.Helper()
	type change struct {
		subject    subject
		generation int64
		start      time.Time
	}
	var changes []change
	var took []time.Duration
	spent := f.spending(t, idle, func() {
		during(fmt.Sprintf("changing %d policies per second for %s", streamPerSecond, duration), nil, func() {
			seen := map[subject]bool{}
			ticker := time.NewTicker(time.Second / streamPerSecond)
			defer ticker.Stop()
			for end := time.Now().Add(duration); time.Now().Before(end); <-ticker.C {
				kind := []kindOfPolicy{generated, handWritten}[random.IntN(2)]
				s := subject{kind, 1 + random.IntN(f.size.namespaces-1), random.IntN(f.size.appsOf())}
				if seen[s] {
					continue // Only the last of two changes would be proven.
				}
				seen[s] = true
				start := time.Now()
				changes = append(changes, change{s, f.change(t, s), start})
			}
			for _, c := range changes {
				took = append(took, f.await(t, c.subject, c.generation).Sub(c.start))
			}
		})
	})
	return []results.Figure{
		results.Milliseconds(results.StatusStream, took),
		results.Number(results.StatusStreamCPU, 1000*spent.cpu/float64(len(changes))),
	}
}
