package results

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Row is a line of the table. Met is empty where there is no target.
type Row struct {
	Scenario, What, Figure, Target, Met string
}

// Rows returns the whole report, each target beside its figure.
func (r *Report) Rows() []Row {
	var rows []Row
	for i := range r.Scenarios {
		rows = append(rows, r.scenarioRows(&r.Scenarios[i])...)
	}
	return append(rows, r.trafficRows()...)
}

func (r *Report) scenarioRows(s *Scenario) []Row {
	var rows []Row
	for _, k := range kinds {
		figure, ok := s.Figure(k.id)
		if !ok {
			continue
		}
		row := Row{Scenario: s.Name, What: k.what, Figure: figure.text(k.unit)}
		var met []bool
		var texts []string
		for _, t := range targets {
			if t.scenario == s.Name && t.kind == k.id {
				text, ok := t.judge(figure)
				texts, met = append(texts, text), append(met, ok)
			}
		}
		if limit, ok := r.largestLimit(s, k.id); ok {
			texts = append(texts, fmt.Sprintf("≤ %.1f × that of %s: %s", largestToLarge, Large, number(limit)))
			met = append(met, figure.Value <= limit)
		}
		if len(met) > 0 {
			row.Target, row.Met = strings.Join(texts, ", "), yes[!slices.Contains(met, false)]
		}
		rows = append(rows, row)
	}
	return rows
}

// largestLimit returns what a delay may be in the largest scenario, if the run has
// the large one too.
func (r *Report) largestLimit(s *Scenario, kind string) (float64, bool) {
	if s.Name != Largest || kind != LabelOpens && kind != LabelCloses {
		return 0, false
	}
	i := slices.IndexFunc(r.Scenarios, func(s Scenario) bool { return s.Name == Large })
	if i < 0 {
		return 0, false
	}
	large, ok := r.Scenarios[i].Figure(kind)
	return largestToLarge * large.Value, ok
}

func (t *target) judge(f Figure) (string, bool) {
	switch {
	case t.stat == p90:
		return "p90 ≤ " + number(t.limit), f.P90 <= t.limit
	case t.stat == p99:
		return "p99 ≤ " + number(t.limit), f.P99 <= t.limit
	case f.N > 0:
		return "p50 ≤ " + number(t.limit), f.Value <= t.limit
	default:
		return "≤ " + number(t.limit), f.Value <= t.limit
	}
}

// leastForP99 is how many samples it takes for the highest of a hundred to be another than
// the highest of all, but for one.
const leastForP99 = 100

// text is the figure with its unit.
func (f *Figure) text(unit string) string {
	if f.N >= leastForP99 && f.P99 > 0 { // older reports have none
		return fmt.Sprintf("p50 %s, p90 %s, p99 %s, max %s %s (n=%d)", number(f.Value), number(f.P90), number(f.P99), number(f.Max), unit, f.N)
	}
	if f.N > 0 {
		return fmt.Sprintf("p50 %s, p90 %s, max %s %s (n=%d)", number(f.Value), number(f.P90), number(f.Max), unit, f.N)
	}
	return strings.TrimSpace(number(f.Value) + " " + unit)
}

// number has three digits that mean something, and all before the point.
func number(v float64) string {
	switch size := math.Abs(v); {
	case size >= 100 || v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case size >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	default:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
}

var yes = map[bool]string{true: "yes", false: "NO"}

func (r *Report) trafficRows() []Row {
	var rows []Row
	place := func(id string) int { return slices.IndexFunc(trafficKinds, func(k kind) bool { return k.id == id }) }
	sorted := slices.Clone(r.Traffic)
	slices.SortStableFunc(sorted, func(a, b Traffic) int {
		return cmp.Or(cmp.Compare(b.Backend, a.Backend), cmp.Compare(place(a.Kind), place(b.Kind)), cmp.Compare(a.Isolated, b.Isolated))
	})
	for _, t := range sorted {
		k := trafficKinds[place(t.Kind)]
		row := Row{
			Scenario: t.Backend,
			What:     fmt.Sprintf("%s, %d isolated pods", k.what, t.Isolated),
			Figure: fmt.Sprintf("%s of no Moat (quartiles %s to %s; %s%s; n=%d)",
				percent(t.Ratio), percent(t.Low), percent(t.High), number(t.PerSecond), k.unit, t.Rounds),
		}
		switch t.Isolated {
		case 0:
			row.What = k.what + ", without Moat once more: the noise"
		case RuleAlone:
			row.What = k.what + ", one rule in Moat's place, for established connections"
		}
		if limit := least[t.Kind]; t.Isolated == mostIsolated && limit > 0 {
			row.Target, row.Met = "≥ "+percent(limit), yes[t.Ratio >= limit]
		}
		rows = append(rows, row)
	}
	return rows
}

func percent(ratio float64) string {
	return strings.TrimSuffix(strconv.FormatFloat(100*ratio, 'f', 1, 64), ".0") + " %"
}

// Print writes the table for a terminal.
func (r *Report) Print(w io.Writer) error { return printRows(w, r.Rows()) }

func printRows(w io.Writer, rows []Row) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(row Row) {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", row.Scenario, row.What, row.Figure, row.Target, row.Met) // Flush has the error.
	}
	line(Row{"SCENARIO", "WHAT", "FIGURE", "TARGET", "MET"})
	for _, row := range rows {
		line(row)
	}
	return table.Flush()
}

// Markdown is the same table, for a document.
func (r *Report) Markdown() string { return markdown(r.Rows()) }

func markdown(rows []Row) string {
	var b strings.Builder
	b.WriteString("| scenario | what | figure | target | met |\n| --- | --- | --- | --- | --- |\n")
	for _, row := range rows {
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", row.Scenario, row.What, row.Figure, row.Target, row.Met)
	}
	return b.String()
}
