package results

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// Status is one run of the benchmark of status.
type Status struct {
	Started    time.Time `json:"started"`
	Machine    Machine   `json:"machine"`
	Scenario   string    `json:"scenario"`
	Nodes      int       `json:"nodes"`
	Namespaces int       `json:"namespaces"`
	Policies   int       `json:"policies"`
	Pods       int       `json:"pods"`
	Figures    []Figure  `json:"figures"`
}

// Fleet is the scenario of 5,000 nodes and 2,000 policies.
const Fleet = "5k"

// The kinds of figures of status.
const (
	StatusFill      = "fill"
	StatusStart     = "start"
	StatusMemory    = "memory"
	StatusPeak      = "memory-peak"
	StatusIdle      = "cpu-idle"
	StatusLargest   = "largest-status"
	StatusStream    = "stream-enforced"
	StatusStreamCPU = "stream-cpu"
	StatusFalls     = "falls"

	// beside a namespace with many AppIsolations that are written all the time
	StatusCrowd      = "crowd-enforced"
	StatusCrowdTimes = "crowd-times"

	StatusRehearsal      = "crowd-rehearsed-enforced"
	StatusRehearsalTimes = "crowd-rehearsed-times"

	StatusCrowdWrites = "crowd-writes"
	StatusCrowdPeak   = "crowd-memory-peak"
)

// ChangeKinds are the kinds of figures of changes of one sort.
type ChangeKinds struct {
	Enforced, Nodes, PolicyWrites, StatusWrites, Events, AgentWrites, CPU string
}

func changeKinds(sort string) ChangeKinds {
	return ChangeKinds{
		Enforced: sort + "-enforced", Nodes: sort + "-nodes", PolicyWrites: sort + "-policy-writes", StatusWrites: sort + "-status-writes",
		Events: sort + "-events", AgentWrites: sort + "-agent-writes", CPU: sort + "-cpu",
	}
}

// StatusKinds are those of changes that concern some nodes, StatusWideKinds of those
// that concern all, by the kind of the object that is changed.
var (
	StatusKinds = map[string]ChangeKinds{
		appIsolation: changeKinds("app"), networkPolicy: changeKinds("policy"),
	}
	StatusWideKinds = map[string]ChangeKinds{
		appIsolation: changeKinds("app-everywhere"), networkPolicy: changeKinds("policy-everywhere"),
	}
)

const (
	appIsolation  = "AppIsolation"
	networkPolicy = "NetworkPolicy"
)

// statusKinds are all, in the order of the table.
var statusKinds = func() []kind {
	var kinds []kind
	for _, object := range []string{appIsolation, networkPolicy} {
		what := map[string]string{appIsolation: "AppIsolation changed", networkPolicy: "hand-written policy changed"}[object]
		kinds = append(kinds, changeRows(what, StatusKinds[object])...)
		kinds = append(kinds, changeRows(what+", pods on all nodes", StatusWideKinds[object])...)
	}
	return append(kinds,
		kind{StatusStream, "5 changes per second → Enforced", "ms"},
		kind{StatusStreamCPU, "5 changes per second: operator's CPU per change", "ms"},
		kind{StatusFalls, "a pod comes that is selected → Enforced falls", "ms"},
		kind{StatusCrowd, "AppIsolation changed beside a crowded namespace → Enforced", "ms"},
		kind{StatusCrowdTimes, "the same, times the median without", ""},
		kind{StatusRehearsal, "AppIsolation changed beside the same writes by dry run, which the operator doesn't see → Enforced", "ms"},
		kind{StatusRehearsalTimes, "the same, times the median without", ""},
		kind{StatusCrowdWrites, "what the crowded namespace wrote meanwhile", ""},
		kind{StatusCrowdPeak, "peak of the operator's memory beside it (VmHWM)", "MB"},
		kind{StatusMemory, "operator's memory (VmRSS) after start", "MB"},
		kind{StatusPeak, "peak of the operator's memory (VmHWM)", "MB"},
		kind{StatusIdle, "operator's CPU, idle", "% of a core"},
		kind{StatusStart, "operator's restart → ready", "s"},
		kind{StatusFill, "operator's first start → every policy made and Enforced", "s"},
		kind{StatusLargest, "largest status of an AppIsolation or PolicyEnforcement", "bytes"},
	)
}()

func changeRows(what string, k ChangeKinds) []kind {
	return []kind{
		{k.Enforced, what + " → Enforced", "ms"},
		{k.Nodes, what + ": nodes that have to confirm, mean", ""},
		{k.PolicyWrites, what + ": writes of the NetworkPolicy by the operator", ""},
		{k.StatusWrites, what + ": writes of the status", ""},
		{k.Events, what + ": writes of events", ""},
		{k.AgentWrites, what + ": writes by each agent concerned", ""},
		{k.CPU, what + ": operator's CPU", "ms"},
	}
}

// statusTargets are those of every scenario. A change of some nodes' policy may cost
// two writes of an object, a policy and an AppIsolation's status; where 5,000 nodes
// have to confirm, the API server decides how long that takes.
var statusTargets = func() []target {
	targets := []target{
		{kind: StatusMemory, limit: 500}, {kind: StatusPeak, limit: 500}, {kind: StatusIdle, limit: 1},
		{kind: StatusStream, stat: p90, limit: 5000}, {kind: StatusLargest, limit: 8192},
		{kind: StatusCrowdTimes, limit: 2}, {kind: StatusFalls, stat: p99, limit: 100},
	}
	for object, k := range StatusKinds {
		writes := map[string]float64{appIsolation: 1, networkPolicy: 0}[object]
		targets = append(targets,
			target{kind: k.Enforced, stat: p90, limit: 3000},
			target{kind: k.PolicyWrites, limit: writes}, target{kind: k.StatusWrites, limit: 2}, target{kind: k.AgentWrites, limit: 1},
		)
		wide := StatusWideKinds[object]
		targets = append(targets, target{kind: wide.PolicyWrites, limit: writes}, target{kind: wide.AgentWrites, limit: 1})
	}
	return targets
}()

// Figure returns a figure by its kind.
func (r *Status) Figure(kind string) (Figure, bool) {
	for _, f := range r.Figures {
		if f.Kind == kind {
			return f, true
		}
	}
	return Figure{}, false
}

// Rows returns the whole report, each target beside its figure.
func (r *Status) Rows() []Row {
	var rows []Row
	for _, k := range statusKinds {
		figure, ok := r.Figure(k.id)
		if !ok {
			continue
		}
		row := Row{Scenario: r.Scenario, What: k.what, Figure: figure.text(k.unit)}
		for _, t := range statusTargets {
			if t.kind == k.id {
				text, met := t.judge(figure)
				row.Target, row.Met = text, yes[met]
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// Print writes the table for a terminal.
func (r *Status) Print(w io.Writer) error { return printRows(w, r.Rows()) }

// Write writes the report, and makes its folder.
func (r *Status) Write(path string) error { return writeJSON(path, r) }

// ReadStatus reads a report.
func ReadStatus(path string) (*Status, error) {
	r := &Status{}
	return r, readJSON(path, r)
}

// The lines of a document between which the report stands.
const (
	statusBegin = "<!-- bench-status: begin -->\n"
	statusEnd   = "<!-- bench-status: end -->\n"
)

// Insert replaces what a document has between the two lines by the report.
func (r *Status) Insert(document string) (string, error) {
	var b strings.Builder
	m := r.Machine
	fmt.Fprintf(&b, "\nMeasured on %s on %d cores of %s, %d MB, Linux %s; load when it began: %.1f. %d nodes, %d pods and the agents', %d policies in %d namespaces.\n\n",
		r.Started.UTC().Format("2 January 2006"), m.Cores, m.CPU, m.Memory, m.Kernel, m.Load, r.Nodes, r.Pods, r.Policies, r.Namespaces)
	b.WriteString(markdown(r.Rows()))
	b.WriteString("\n")
	return insert(document, statusBegin, statusEnd, b.String())
}
