package results

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
)

// The picture's panels beside each other, in pixels.
const (
	panelWidth  = 300
	panelHeight = 240
	marginLeft  = 52
	marginTop   = 44
	marginRight = 18
	marginBelow = 44
	gridLines   = 4
)

// curve is a line of a panel.
type curve struct {
	kind, name, color string
}

// panel is a chart of figures over the number of the cluster's pods.
type panel struct {
	title  string
	curves []curve
}

var panels = []panel{
	{"delay, median in ms", []curve{{LabelOpens, "label change", "#0b6e99"}, {PolicyOpens, "policy created", "#c2571a"}}},
	{"first sync, ms", []curve{{FirstSync, "empty kernel", "#0b6e99"}, {RestartSync, "restart", "#c2571a"}}},
	{"agent's memory, MB", []curve{{MemoryStart, "after start", "#0b6e99"}, {MemoryPeak, "peak", "#c2571a"}}},
}

// Picture is the growth of the agent's cost with the cluster as an SVG. The
// scenarios are those of one run.
func (r *Report) Picture() string {
	_, drawn := r.split()
	scenarios := slices.SortedFunc(slices.Values(drawn.Scenarios), func(a, b Scenario) int { return cmp.Compare(a.TotalPods(), b.TotalPods()) })
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="sans-serif" font-size="11" fill="#333">`+"\n",
		panelWidth*len(panels), panelHeight)
	b.WriteString(`<rect width="100%" height="100%" fill="#fff"/>` + "\n")
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d 0)">`+"\n", i*panelWidth)
		p.draw(&b, scenarios)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func (p *panel) draw(b *strings.Builder, scenarios []Scenario) {
	fmt.Fprintf(b, `<text x="%d" y="16" font-size="13" font-weight="bold">%s</text>`+"\n", marginLeft, p.title)
	top := p.top(scenarios)
	for i := range gridLines + 1 {
		v := top * float64(i) / gridLines
		fmt.Fprintf(b, `<line x1="%d" x2="%d" y1="%[3]g" y2="%[3]g" stroke="#ddd"/><text x="%[4]d" y="%[3]g" dy="4" text-anchor="end">%[5]s</text>`+"\n",
			marginLeft, panelWidth-marginRight, y(v, top), marginLeft-6, number(v))
	}
	for i := range scenarios {
		fmt.Fprintf(b, `<text x="%g" y="%d" text-anchor="middle">%d</text>`+"\n", x(scenarios, i), panelHeight-marginBelow+16, scenarios[i].TotalPods())
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">pods in the cluster</text>`+"\n",
		(marginLeft+panelWidth-marginRight)/2, panelHeight-8)
	for i, c := range p.curves {
		fmt.Fprintf(b, `<text x="%d" y="32" fill="%s">● %s</text>`+"\n", marginLeft+i*110, c.color, c.name)
		c.draw(b, scenarios, top)
	}
}

func (c *curve) draw(b *strings.Builder, scenarios []Scenario, top float64) {
	var points []string
	for i := range scenarios {
		if f, ok := scenarios[i].Figure(c.kind); ok {
			points = append(points, fmt.Sprintf("%g,%g", x(scenarios, i), y(f.Value, top)))
			fmt.Fprintf(b, `<circle cx="%g" cy="%g" r="3" fill="%s"/>`+"\n", x(scenarios, i), y(f.Value, top), c.color)
		}
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", strings.Join(points, " "), c.color)
}

// top is the upper end of the panel's scale: a round number above all its figures.
func (p *panel) top(scenarios []Scenario) float64 {
	most := 0.0
	for _, c := range p.curves {
		for i := range scenarios {
			if f, ok := scenarios[i].Figure(c.kind); ok {
				most = max(most, f.Value)
			}
		}
	}
	if most == 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(most)))
	for _, step := range []float64{1, 2, 4, 8} {
		if step*unit >= most {
			return step * unit
		}
	}
	return 10 * unit
}

// x is the place of a scenario: the number of pods, in decades.
func x(scenarios []Scenario, i int) float64 {
	const width = panelWidth - marginLeft - marginRight
	if len(scenarios) == 1 {
		return marginLeft + width/2
	}
	decades := func(i int) float64 { return math.Log10(float64(scenarios[i].TotalPods())) }
	first, last := decades(0), decades(len(scenarios)-1)
	const inset = 16
	return math.Round(marginLeft + inset + (width-2*inset)*(decades(i)-first)/max(last-first, 1e-9))
}

func y(v, top float64) float64 {
	const height = panelHeight - marginTop - marginBelow
	return math.Round(panelHeight - marginBelow - height*v/top)
}
