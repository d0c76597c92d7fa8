package results

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMillisecondsAreOfSamples(t *testing.T) {
	var samples []time.Duration
	for i := range 100 {
		samples = append(samples, time.Duration(100-i)*time.Millisecond)
	}
	require.Equal(t, Figure{Kind: LabelOpens, Value: 50, P90: 90, P99: 99, Max: 100, N: 100}, Milliseconds(LabelOpens, samples))
	require.Equal(t, Figure{Kind: LabelOpens, Value: 7, P90: 7, P99: 7, Max: 7, N: 1}, Milliseconds(LabelOpens, []time.Duration{7 * time.Millisecond}))
}

func TestTrafficComparesRoundByRound(t *testing.T) {
	// Both get slower from round to round: the ratio doesn't.
	got := NewTraffic(NewConnections, "nft", 250, []float64{90, 45, 9}, []float64{100, 50, 10})
	require.InDelta(t, 0.9, got.Ratio, 1e-9)
	require.InDelta(t, 0.9, got.Low, 1e-9)
	require.EqualValues(t, 45, got.PerSecond)
}

func TestQuantileInterpolates(t *testing.T) {
	require.EqualValues(t, 1.75, Quantile([]float64{4, 1, 2, 3}, 0.25))
	require.EqualValues(t, 4, Quantile([]float64{4, 1}, 1))
}

// example is a report that meets some targets and misses others.
func example() *Report {
	delay := func(kind string, p50, p90 float64) Figure {
		return Figure{Kind: kind, Value: p50, P90: p90, Max: 2 * p90, N: 50}
	}
	return &Report{
		Machine: Machine{CPU: "Test", Cores: 2, Memory: 4096, Kernel: "6.1"},
		Scenarios: []Scenario{
			{Name: Large, Namespaces: 100, Pods: 100, Policies: 20, Local: 100, Figures: []Figure{
				delay(LabelOpens, 10, 60), delay(LabelCloses, 8, 12), Number(FirstSync, 1000), Number(Rules, 1234),
			}},
			{Name: Largest, Namespaces: 1000, Pods: 100, Policies: 20, Local: 100, Figures: []Figure{
				delay(LabelOpens, 15, 60), delay(LabelCloses, 12.5, 20), Number(MemoryStart, 601),
			}},
		},
		Traffic: []Traffic{
			NewTraffic(OneStream, "iptables-nft", 250, []float64{97}, []float64{100}),
			NewTraffic(NewConnections, "iptables-nft", 250, []float64{97}, []float64{100}),
			NewTraffic(NewConnections, "iptables-nft", 1, []float64{50}, []float64{100}),
		},
	}
}

func TestTheTableJudgesEachTarget(t *testing.T) {
	met := map[string]string{}
	var order []string
	for _, row := range example().Rows() {
		met[row.Scenario+" "+row.What] = row.Met
		order = append(order, row.What)
	}
	label, closes := "label change → first packet that passes", "label change → last packet that passes"
	require.Equal(t, "NO", met["10k "+label], "its p90 is too long")
	require.Equal(t, "yes", met["10k "+closes])
	require.Equal(t, "yes", met["10k first sync: caches complete → rules in the kernel"], "a target may be reached exactly")
	require.Empty(t, met["10k rules"])
	require.Equal(t, "yes", met["100k "+label], "half more than in the large one")
	require.Equal(t, "NO", met["100k "+closes])
	require.Equal(t, "NO", met["100k memory (VmRSS) after start"])
	require.Equal(t, "yes", met["iptables-nft new connections (TCP connect, request, response), 250 isolated pods"])
	require.Equal(t, "NO", met["iptables-nft throughput of one established connection, 250 isolated pods"])
	require.Empty(t, met["iptables-nft new connections (TCP connect, request, response), 1 isolated pods"])
	require.Contains(t, order[len(order)-1], "throughput", "kinds keep their order")
}

// Every figure that has a target is one that the table knows.
func TestTargetsAreOfKnownKinds(t *testing.T) {
	known := map[string]bool{}
	for _, k := range kinds {
		require.False(t, known[k.id], k.id)
		known[k.id] = true
	}
	for _, target := range targets {
		require.True(t, known[target.kind], target.kind)
	}
}

func TestAReportIsReadAsItWasWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "bench.json")
	require.NoError(t, example().Write(path))
	read, err := Read(path)
	require.NoError(t, err)
	require.Equal(t, example(), read)
}

func TestInsertReplacesWhatADocumentHas(t *testing.T) {
	document := "before\n" + begin + "old\n" + end + "after\n"
	once, err := example().Insert(document)
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(once, "before\n"+begin) && strings.HasSuffix(once, end+"after\n"))
	require.NotContains(t, once, "old")
	require.Contains(t, once, "| 10k | first sync: caches complete → rules in the kernel | 1000 ms | ≤ 1000 | yes |")
	twice, err := example().Insert(once)
	require.NoError(t, err)
	require.Equal(t, once, twice)
	_, err = example().Insert("no place")
	require.Error(t, err)
}

// A run of the hostile scenario alone leaves the other figures of a document as they are,
// and the contrary.
func TestTheHostileScenarioHasAPlaceOfItsOwn(t *testing.T) {
	delays := Figure{Kind: ChangeInForce, Value: 20, P90: 100, P99: 1001, Max: 1200, N: 100}
	report := &Report{Scenarios: []Scenario{
		{Name: Quiet, Figures: []Figure{delays}},
		{Name: Hostile, Figures: []Figure{delays, Number(MemoryPeak, 300)}},
	}}
	met := map[string]string{}
	for _, row := range report.Rows() {
		met[row.Scenario+" "+row.What] = row.Met
	}
	change := "label or policy of another namespace changed → in force, both ways"
	require.Equal(t, "NO", met["hostile "+change], "one of a hundred is too late")
	require.Empty(t, met["quiet "+change])
	require.Equal(t, "yes", met["hostile peak of memory (VmHWM)"])

	document := begin + "ordinary\n" + end + hostileBegin + "hostile\n" + hostileEnd
	filled, err := report.Insert(document)
	require.NoError(t, err)
	require.Contains(t, filled, begin+"ordinary\n"+end)
	require.Contains(t, filled, "p50 20, p90 100, p99 1001, max 1200 ms (n=100) | p99 ≤ 1000 | NO |")
	require.False(t, report.Grows())
	filled, err = example().Insert(document)
	require.NoError(t, err)
	require.Contains(t, filled, hostileBegin+"hostile\n"+hostileEnd)
	require.NotContains(t, filled, "ordinary")
	require.True(t, example().Grows())
}

// The page that make bench-docs fills has a place for each of the three reports.
func TestTheResultsPageHasThePlaces(t *testing.T) {
	page, err := os.ReadFile("../../../docs/performance/results.md")
	require.NoError(t, err)
	hostile := &Report{Scenarios: []Scenario{{Name: Quiet}, {Name: Hostile}}}
	for _, report := range []interface{ Insert(string) (string, error) }{example(), hostile, exampleStatus()} {
		_, err := report.Insert(string(page))
		require.NoError(t, err)
	}
	require.Contains(t, string(page), "](growth.svg)")
}

func TestThePictureIsXML(t *testing.T) {
	picture := example().Picture()
	require.NoError(t, xml.Unmarshal([]byte(picture), new(struct{})))
	require.NotContains(t, picture, "NaN")
	require.Equal(t, 2, strings.Count(picture, `>100000</text>`)-1, "each panel names the clusters")
}
