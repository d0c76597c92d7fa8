// Package results is what the benchmark measured, as plain data: the JSON that it
// writes, the targets, and how both read as a table and as a picture.
package results

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Report is one run.
type Report struct {
	Started   time.Time  `json:"started"`
	Machine   Machine    `json:"machine"`
	Scenarios []Scenario `json:"scenarios,omitempty"`
	Traffic   []Traffic  `json:"traffic,omitempty"`
}

// Machine is what the run had. Load is that of the machine when the run began:
// above some tenths, others took part of the cores.
type Machine struct {
	CPU    string  `json:"cpu"`
	Cores  int     `json:"cores"`
	Memory int     `json:"memoryMB"`
	Kernel string  `json:"kernel"`
	Load   float64 `json:"loadAtStart"`
}

// Scenario is one cluster and its figures.
type Scenario struct {
	Name       string   `json:"name"`
	Namespaces int      `json:"namespaces"`
	Pods       int      `json:"podsPerNamespace"`
	Policies   int      `json:"policiesPerNamespace"`
	Local      int      `json:"localPods"`
	Backend    string   `json:"backend"`
	Figures    []Figure `json:"figures"`
}

// TotalPods is the number of the cluster's pods.
func (s *Scenario) TotalPods() int { return s.Namespaces * s.Pods }

// Figure returns a figure by its kind.
func (s *Scenario) Figure(kind string) (Figure, bool) {
	i := slices.IndexFunc(s.Figures, func(f Figure) bool { return f.Kind == kind })
	if i < 0 {
		return Figure{}, false
	}
	return s.Figures[i], true
}

// Figure is one number, or the distribution of N samples, in the unit of its kind.
type Figure struct {
	Kind string `json:"kind"`
	// Value is the number, or the median of the samples.
	Value float64 `json:"value"`
	P90   float64 `json:"p90,omitempty"`
	P99   float64 `json:"p99,omitempty"`
	Max   float64 `json:"max,omitempty"`
	N     int     `json:"samples,omitempty"`
}

// Number makes a figure of one number.
func Number(kind string, value float64) Figure { return Figure{Kind: kind, Value: value} }

// Milliseconds makes a figure of samples, of which there must be one at least.
func Milliseconds(kind string, samples []time.Duration) Figure {
	return durations(time.Millisecond, kind, samples)
}

// Microseconds is Milliseconds in another unit.
func Microseconds(kind string, samples []time.Duration) Figure {
	return durations(time.Microsecond, kind, samples)
}

func durations(unit time.Duration, kind string, samples []time.Duration) Figure {
	sorted := slices.Sorted(slices.Values(samples))
	at := func(quantile float64) float64 {
		index := int(math.Ceil(quantile*float64(len(sorted)))) - 1
		return float64(sorted[max(0, index)]) / float64(unit)
	}
	return Figure{Kind: kind, Value: at(0.5), P90: at(0.9), P99: at(0.99), Max: at(1), N: len(sorted)}
}

// Traffic is how much of something passed a node per second, beside a node without
// Moat in the same rounds.
type Traffic struct {
	Kind     string `json:"kind"`
	Backend  string `json:"backend"`
	Isolated int    `json:"isolatedPods"` // 0: a second node without Moat, which shows the noise; or RuleAlone
	// PerSecond is the median of the rounds, Ratio that of each round's ratio to what
	// passed without Moat, Low and High the quartiles of the ratio.
	PerSecond float64 `json:"perSecond"`
	Ratio     float64 `json:"ratio"`
	Low       float64 `json:"ratioLow"`
	High      float64 `json:"ratioHigh"`
	Rounds    int     `json:"rounds"`
}

// RuleAlone stands for a node without Moat that has one rule in its place, which
// accepts established connections: the least that any filter costs them.
const RuleAlone = -1

// NewTraffic makes a Traffic of the rounds with Moat and those without, which were
// taken in pairs.
func NewTraffic(kind, backend string, isolated int, with, without []float64) Traffic {
	ratios := make([]float64, len(with))
	for i := range with {
		ratios[i] = with[i] / without[i]
	}
	return Traffic{
		Kind: kind, Backend: backend, Isolated: isolated, Rounds: len(with),
		PerSecond: Quantile(with, 0.5),
		Ratio:     Quantile(ratios, 0.5), Low: Quantile(ratios, 0.25), High: Quantile(ratios, 0.75),
	}
}

// Quantile interpolates between samples; NaN where there are none.
func Quantile(samples []float64, q float64) float64 {
	if len(samples) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(samples))
	place := q * float64(len(sorted)-1)
	low := int(place)
	if low+1 == len(sorted) {
		return sorted[low]
	}
	return sorted[low] + (place-float64(low))*(sorted[low+1]-sorted[low])
}

// Read reads a report.
func Read(path string) (*Report, error) {
	report := &Report{}
	return report, readJSON(path, report)
}

func readJSON(path string, report any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("reading the report: %w", err)
	}
	if err := json.Unmarshal(text, report); err != nil {
		return fmt.Errorf("reading the report %s: %w", path, err)
	}
	return nil
}

// Write writes a report, and makes its folder.
func (r *Report) Write(path string) error { return writeJSON(path, r) }

func writeJSON(path string, report any) error {
	text, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}
