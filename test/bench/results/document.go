package results

import (
	"errors"
	"fmt"
	"strings"
)

// The lines of a document between which the report stands.
const (
	begin = "<!-- bench: begin -->\n"
	end   = "<!-- bench: end -->\n"
)

// Insert replaces what a document has between the two lines by the report.
func (r *Report) Insert(document string) (string, error) {
	return insert(document, begin, end, r.text())
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
