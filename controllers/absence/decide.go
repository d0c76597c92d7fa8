package absence

import (
	"cmp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

const (
	// absentAfter is how long a node may be without a Ready agent: an agent that
	// restarts, or is replaced by an update, is back well before that.
	absentAfter = 60 * time.Second

	// mostPercent of the nodes have the taint at most, and one node may have it
	// always. Where more lack their agent, that is no fault of nodes: the rest of the
	// cluster has to go on taking pods.
	mostPercent = 30
)

// afterGap returns for how long the operator hears of a node without a gap until an agent
// may count as absent: half as long again as its patience. After an outage of the API server
// no agent that it cut off is Ready until it has heard again: client-go waits for up to 60 s
// between two tries, and then the kubelet has to ask and to say so.
func afterGap(patience time.Duration) time.Duration { return patience + patience/2 }

// podState is what is known of the agent pods of a node.
type podState int

const (
	noPod podState = iota
	podNotReady
	podReady
)

// node is what is known of one Node.
type node struct {
	name    string
	created time.Time
	ready   bool // the Node's own condition
	tainted bool
	wanted  bool // the agents' DaemonSet places a pod here
	agent   podState
	report  *report // nil: no agent has reported for this Node

	// heard is since when the operator hears of the node's pods without a gap: since it
	// looked first, or since the Node is Ready again.
	heard time.Time
}

// report is what counts of a NodeEnforcement.
type report struct {
	guarded bool // the agent's last word on the guard of pod starts
	agent   *v1alpha1.NodeAgent
}

// decision is what there is to write, and what to say of the cluster.
type decision struct {
	// agents are the states that the reports lack, by node.
	agents map[string]v1alpha1.NodeAgent
	// taint and untaint are the nodes that get the taint and lose it, in order.
	taint, untaint []string
	counts         counts
	// next is how long until another node may be due; zero: not without an event.
	next time.Duration
}

// counts are numbers of nodes.
type counts struct {
	absent  int // without a Ready agent for absentAfter
	tainted int // that have the taint or get it now, and are Ready themselves
	spared  int // of the absent, those that the bound keeps from getting it
}

// decide is pure. A node may be without a Ready agent for patience. The result doesn't
// depend on the order of the nodes. now is the operator's clock, and so is every
// `since`, so that the clocks of nodes don't count.
func decide(nodes []node, patience time.Duration, now time.Time) decision {
	d := decision{agents: map[string]v1alpha1.NodeAgent{}}
	var candidates []candidate
	takers := 0
	for _, n := range nodes {
		state := stateOf(n, now)
		if n.report != nil && (n.report.agent == nil || *n.report.agent != state) {
			d.agents[n.name] = state
		}
		if n.wanted && n.ready {
			takers++
		}
		left, absent := untilAbsent(n, state, patience, now)
		due := absent && left <= 0
		switch {
		case due:
			d.counts.absent++
		case absent:
			d.lookAgain(left)
		}
		if deserves(n, state.State, due) {
			unknown := state.State == v1alpha1.AgentUnknown
			candidates = append(candidates, candidate{node: n, since: state.Since.Time, stands: unknown, due: due})
		} else if n.tainted {
			d.untaint = append(d.untaint, n.name)
		}
	}
	d.choose(candidates, max(1, takers*mostPercent/100))
	slices.Sort(d.untaint)
	return d
}

// lookAgain is for a node that is due after some time.
func (d *decision) lookAgain(after time.Duration) {
	if d.next == 0 || after < d.next {
		d.next = after
	}
}

// withoutTaints is the decision where no node may have the taint.
func (d decision) withoutTaints(nodes []node) decision {
	d.taint, d.untaint = nil, nil
	d.counts.tainted, d.counts.spared = 0, 0
	for _, n := range nodes {
		if n.tainted {
			d.untaint = append(d.untaint, n.name)
		}
	}
	slices.Sort(d.untaint)
	return d
}

// candidate is a node that has the taint, or would get it.
type candidate struct {
	node
	since time.Time
	// stands is of a node that keeps its taint and doesn't count: the Node itself
	// isn't Ready, so that it takes no pods anyway.
	stands bool
	// due is false of a node that has the taint and whose time began again.
	due bool
}

// choose takes the nodes with the taint first, then those that have waited longest.
func (d *decision) choose(candidates []candidate, most int) {
	slices.SortFunc(candidates, func(a, b candidate) int {
		return cmp.Or(compareTaint(a.node, b.node), a.since.Compare(b.since), cmp.Compare(a.name, b.name))
	})
	for _, c := range candidates {
		switch {
		case c.stands:
		case d.counts.tainted < most:
			d.counts.tainted++
			if !c.tainted {
				d.taint = append(d.taint, c.name)
			}
		default:
			if c.due {
				d.counts.spared++
			}
			if c.tainted {
				d.untaint = append(d.untaint, c.name)
			}
		}
	}
}

// compareTaint puts nodes with the taint first.
func compareTaint(a, b node) int {
	switch {
	case a.tainted == b.tainted:
		return 0
	case a.tainted:
		return -1
	}
	return 1
}

// deserves says whether the node has to have the taint as far as it alone is
// concerned: it gets it when it is due, and keeps it until the agent is Ready, also
// while the Node isn't.
func deserves(n node, state v1alpha1.AgentState, due bool) bool {
	if !n.wanted || n.report == nil || !n.report.guarded {
		return false
	}
	return due || n.tainted && (lacksAgent(state) || state == v1alpha1.AgentUnknown)
}

// untilAbsent returns how long until a node without a Ready agent counts as such. A
// node whose agent never reported is as old as its Node. What was before a gap doesn't count:
// the agent may have been Ready in the meantime, or have been cut off as the operator was.
func untilAbsent(n node, state v1alpha1.NodeAgent, patience time.Duration, now time.Time) (left time.Duration, absent bool) {
	if !n.wanted || !lacksAgent(state.State) {
		return 0, false
	}
	since := state.Since.Time
	if n.report == nil {
		since = n.created
	}
	return max(patience-now.Sub(since), afterGap(patience)-now.Sub(n.heard)), true
}

func lacksAgent(state v1alpha1.AgentState) bool {
	return state == v1alpha1.AgentNotReady || state == v1alpha1.AgentMissing
}

// stateOf returns the state of the node's agent. It began when the report says so,
// if that has the same state or also one without a Ready agent; else it begins now.
//
// A Node that isn't Ready is no word on its agent: the control plane then calls every
// pod of the node NotReady. When the Node is back, the agent gets its time again.
func stateOf(n node, now time.Time) v1alpha1.NodeAgent {
	state := v1alpha1.NodeAgent{State: v1alpha1.AgentExcluded, Since: metav1.NewTime(now.Truncate(time.Second))}
	switch {
	case n.agent == podReady:
		state.State = v1alpha1.AgentReady
	case !n.ready:
		state.State = v1alpha1.AgentUnknown
	case n.agent == podNotReady:
		state.State = v1alpha1.AgentNotReady
	case n.wanted:
		state.State = v1alpha1.AgentMissing
	}
	if n.report == nil || n.report.agent == nil {
		return state
	}
	stored := n.report.agent
	if stored.State == state.State || lacksAgent(stored.State) && lacksAgent(state.State) {
		state.Since = stored.Since
	}
	return state
}
