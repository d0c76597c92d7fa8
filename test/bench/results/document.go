package results

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The lines of a document between which the report stands: the scenarios Quiet and
// Hostile, and all others.
const (
	begin        = "<!-- bench: begin -->\n"
	end          = "<!-- bench: end -->\n"
	hostileBegin = "<!-- bench-hostile: begin -->\n"
	hostileEnd   = "<!-- bench-hostile: end -->\n"
)

// Insert replaces what a document has between the lines by the report. What the run
// didn't measure stays.
func (r *Report) Insert(document string) (string, error) {
	hostile, others := r.split()
	var err error
	if len(hostile.Scenarios) > 0 {
		document, err = insert(document, hostileBegin, hostileEnd, hostile.text())
	}
	if err != nil || !others.measured() {
		return document, err
	}
	return insert(document, begin, end, others.text())
}

// split returns the scenarios Quiet and Hostile, and the rest.
func (r *Report) split() (hostile, others *Report) {
	with, without := *r, *r
	isHostile := func(s Scenario) bool { return s.Name == Quiet || s.Name == Hostile }
	with.Scenarios = slices.DeleteFunc(slices.Clone(r.Scenarios), func(s Scenario) bool { return !isHostile(s) })
	without.Scenarios = slices.DeleteFunc(slices.Clone(r.Scenarios), isHostile)
	with.Traffic = nil
	return &with, &without
}

func (r *Report) measured() bool { return len(r.Scenarios)+len(r.Traffic) > 0 }

// Grows reports whether the run has scenarios that Picture draws.
func (r *Report) Grows() bool {
	_, others := r.split()
	return len(others.Scenarios) > 0
}

func insert(document, begin, end, text string) (string, error) {
	before, rest, ok := strings.Cut(document, begin)
	_, after, found := strings.Cut(rest, end)
	if !ok || !found {
		return "", errors.New("finding the report's place: the document lacks one of its two lines")
	}
	return before + begin + text + end + after, nil
}

// text is the report with the machine and the sizes.
func (r *Report) text() string {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "\nMeasured on %s on %d cores of %s, %d MB, Linux %s; load when it began: %.1f.\n\n",
		r.Started.UTC().Format("2 January 2006"), m.Cores, m.CPU, m.Memory, m.Kernel, m.Load)
	if len(r.Scenarios) > 0 {
		b.WriteString("| scenario | namespaces | pods | policies | local pods | backend |\n| --- | --- | --- | --- | --- | --- |\n")
		for _, s := range r.Scenarios {
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %s |\n", s.Name, s.Namespaces, s.TotalPods(), s.Namespaces*s.Policies, s.Local, s.Backend)
		}
		b.WriteString("\n")
	}
	b.WriteString(r.Markdown())
	b.WriteString("\n")
	return b.String()
}
