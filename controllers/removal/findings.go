package removal

import (
	"cmp"
	"maps"
	"slices"
)

// kind is one reason why removal leaves something of Moat. The order is that of the report.
type kind int

const (
	nodeNotReady kind = iota
	agentFails
	agentStarts
	agentNotReady
	agentMissing
	agentOrphaned
	agentHasNoTime
	taintStands
)

// passing are the kinds that may pass by themselves within the check's patience.
var passing = map[kind]bool{agentStarts: true, agentNotReady: true}

// finding is what keeps removal from one node.
type finding struct {
	kind kind
	node string
	// detail is what the cluster says about it, and may be empty.
	detail string
}

// findingsOf returns what keeps removal from nodes, sorted by kind and node. It is empty
// where removal reaches every node.
func findingsOf(seen cluster) []finding {
	var found []finding
	for _, name := range slices.Sorted(maps.Keys(seen.nodes)) {
		at := seen.nodes[name]
		if f, out := outOfReach(at, seen.agents[name], seen.reports[name]); out {
			f.node = name
			found = append(found, f)
		}
		if at.tainted && !seen.operatorReady {
			found = append(found, finding{kind: taintStands, node: name})
		}
	}
	slices.SortStableFunc(found, func(a, b finding) int { return cmp.Compare(a.kind, b.kind) })
	return found
}

// outOfReach says why removal doesn't clean a node. reported is whether an agent of the
// node has written a report.
//
// Only Nodes that exist count: the report of a Node that was deleted goes by itself, and
// nothing reaches its machine.
func outOfReach(at node, agents []agent, reported bool) (finding, bool) {
	if !reported && !anyRuns(agents) {
		return finding{}, false
	}
	if at.notReady != "" {
		return finding{kind: nodeNotReady, detail: at.notReady}, true
	}
	// While an agent is replaced its node has two pods. The better one decides.
	best := finding{kind: agentMissing}
	for _, a := range agents {
		if a.cleans {
			return finding{}, false
		}
		if best.kind == agentMissing || passing[a.fault.kind] {
			best = a.fault
		}
	}
	return best, true
}

// anyRuns is true where an agent runs: it may have rules though its report isn't written
// yet.
func anyRuns(agents []agent) bool {
	return slices.ContainsFunc(agents, func(a agent) bool { return a.runs })
}

func mayPass(found []finding) bool {
	return !slices.ContainsFunc(found, func(f finding) bool { return !passing[f.kind] })
}
