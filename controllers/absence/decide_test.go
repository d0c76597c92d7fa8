package absence

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

var now = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)

// healthy is a guarded node whose agent is Ready for an hour.
func healthy(name string) node {
	return node{
		name: name, created: now.Add(-24 * time.Hour), ready: true, wanted: true, agent: podReady,
		report: &report{guarded: true, agent: said(v1alpha1.AgentReady, time.Hour)},
	}
}

// said is what the operator wrote so long ago.
func said(state v1alpha1.AgentState, ago time.Duration) *v1alpha1.NodeAgent {
	return &v1alpha1.NodeAgent{State: state, Since: metav1.NewTime(now.Add(-ago))}
}

// without is a guarded node without an agent for so long.
func without(name string, ago time.Duration) node {
	n := healthy(name)
	n.agent, n.report.agent = noPod, said(v1alpha1.AgentMissing, ago)
	return n
}

func TestDecideForOneNode(t *testing.T) {
	const none, puts, takes, stays = "none", "puts", "takes", "stays"
	for name, test := range map[string]struct {
		change func(*node)
		want   string
		state  v1alpha1.AgentState
		// since is how long ago the written state began; -1: nothing is written.
		since time.Duration
	}{
		"all is well":                   {func(*node) {}, none, v1alpha1.AgentReady, -1},
		"the agent went just now":       {func(n *node) { n.agent = noPod }, none, v1alpha1.AgentMissing, 0},
		"the agent fails just now":      {func(n *node) { n.agent = podNotReady }, none, v1alpha1.AgentNotReady, 0},
		"59 seconds without":            {func(n *node) { *n = without("a", 59*time.Second) }, none, v1alpha1.AgentMissing, -1},
		"a minute without":              {func(n *node) { *n = without("a", 60*time.Second) }, puts, v1alpha1.AgentMissing, -1},
		"a minute without, and tainted": {func(n *node) { *n = without("a", time.Hour); n.tainted = true }, stays, v1alpha1.AgentMissing, -1},
		"a crash loop makes a new pod, and its time goes on": {
			func(n *node) { *n = without("a", time.Minute); n.agent = podNotReady }, puts, v1alpha1.AgentNotReady, time.Minute},
		"the agent is back": {func(n *node) { n.tainted = true }, takes, v1alpha1.AgentReady, -1},
		"no guard stands":   {func(n *node) { *n = without("a", time.Hour); n.report.guarded = false }, none, v1alpha1.AgentMissing, -1},
		"no guard stands any more": {
			func(n *node) { *n = without("a", time.Hour); n.report.guarded, n.tainted = false, true }, takes, v1alpha1.AgentMissing, -1},
		"no agent ever reported": {func(n *node) { *n = without("a", time.Hour); n.report = nil }, none, v1alpha1.AgentMissing, -1},
		"the DaemonSet excludes it": {
			func(n *node) { *n = without("a", time.Hour); n.wanted = false }, none, v1alpha1.AgentExcluded, 0},
		"the DaemonSet excludes a tainted one": {
			func(n *node) { *n = without("a", time.Hour); n.wanted, n.tainted = false, true }, takes, v1alpha1.AgentExcluded, 0},
		"an agent that is on its way out of an excluded node": {
			func(n *node) { *n = without("a", time.Hour); n.wanted, n.agent = false, podNotReady }, none, v1alpha1.AgentNotReady, time.Hour},
		"the Node isn't Ready": {
			func(n *node) { n.ready, n.agent = false, podNotReady }, none, v1alpha1.AgentUnknown, 0},
		"the Node isn't Ready for an hour": {
			func(n *node) {
				n.ready, n.agent, n.report.agent = false, podNotReady, said(v1alpha1.AgentUnknown, time.Hour)
			},
			none, v1alpha1.AgentUnknown, -1},
		"the Node is back, and the agent gets its time again": {
			func(n *node) { n.agent, n.report.agent = podNotReady, said(v1alpha1.AgentUnknown, time.Hour) },
			none, v1alpha1.AgentNotReady, 0},
		"a tainted Node isn't Ready": {
			func(n *node) { *n = without("a", time.Hour); n.tainted, n.ready = true, false }, stays, v1alpha1.AgentUnknown, 0},
		"a tainted Node is back, and its agent isn't yet": {
			func(n *node) {
				n.tainted, n.agent, n.report.agent = true, podNotReady, said(v1alpha1.AgentUnknown, time.Hour)
			}, stays, v1alpha1.AgentNotReady, 0},
		"a minute without, and an operator that looks for less than 90 seconds": {
			func(n *node) { *n = without("a", time.Hour); n.heard = now.Add(-89 * time.Second) }, none, v1alpha1.AgentMissing, -1},
		"a minute without, and an operator that looks for 90 seconds": {
			func(n *node) { *n = without("a", time.Hour); n.heard = now.Add(-90 * time.Second) }, puts, v1alpha1.AgentMissing, -1},
		"an operator that begins keeps the taint": {
			func(n *node) { *n = without("a", time.Hour); n.tainted, n.heard = true, now }, stays, v1alpha1.AgentMissing, -1},
		"an agent works on a Node that calls itself NotReady": {func(n *node) { n.ready = false }, none, v1alpha1.AgentReady, -1},
		"the operator never wrote":                            {func(n *node) { n.report.agent = nil }, none, v1alpha1.AgentReady, 0},
	} {
		t.Run(name, func(t *testing.T) {
			n := healthy("a")
			test.change(&n)
			d := decide([]node{n}, absentAfter, now)
			require.Equal(t, test.want == puts, slices.Contains(d.taint, "a"), "gets the taint")
			require.Equal(t, test.want == takes, slices.Contains(d.untaint, "a"), "loses the taint")
			require.Equal(t, test.state, stateOf(n, now).State)
			written, writes := d.agents["a"]
			require.Equal(t, test.since >= 0, writes, "%+v", written)
			if writes {
				require.Equal(t, test.state, written.State)
				require.Equal(t, now.Add(-test.since), written.Since.Time)
			}
		})
	}
}

func TestNeverMoreThanTheBound(t *testing.T) {
	for _, test := range []struct{ nodes, absent, tainted, wantTainted int }{
		{nodes: 1, absent: 1, wantTainted: 1},
		{nodes: 3, absent: 3, wantTainted: 1},
		{nodes: 10, absent: 2, wantTainted: 2},
		{nodes: 10, absent: 10, wantTainted: 3},
		{nodes: 10, absent: 10, tainted: 3, wantTainted: 3},
		{nodes: 10, absent: 10, tainted: 5, wantTainted: 3}, // nodes were removed since
		{nodes: 5000, absent: 5000, wantTainted: 1500},
	} {
		t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
			var nodes []node
			for i := range test.nodes {
				n := healthy(fmt.Sprintf("node-%04d", i))
				if i < test.absent {
					n = without(n.name, time.Hour+time.Duration(i)*time.Second)
					n.tainted = i < test.tainted
				}
				nodes = append(nodes, n)
			}
			rand.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
			d := decide(nodes, absentAfter, now)
			require.Equal(t, counts{absent: test.absent, tainted: test.wantTainted, spared: test.absent - test.wantTainted}, d.counts)
			require.Len(t, d.taint, max(0, test.wantTainted-test.tainted))
			require.Len(t, d.untaint, max(0, test.tainted-test.wantTainted))
			for _, name := range d.taint {
				require.GreaterOrEqual(t, name, fmt.Sprintf("node-%04d", test.absent-test.wantTainted), "those that waited longest")
			}
		})
	}
}

// Nodes that take no pods anyway, and those that have no agents, make no room for more.
func TestTheBoundIsOfNodesThatTakePods(t *testing.T) {
	var nodes []node
	for i := range 10 {
		n := healthy(fmt.Sprint("away-", i))
		n.ready, n.agent = false, podNotReady
		excluded := healthy(fmt.Sprint("excluded-", i))
		excluded.wanted, excluded.agent = false, noPod
		nodes = append(nodes, n, excluded)
	}
	for i := range 4 {
		nodes = append(nodes, without(fmt.Sprint("absent-", i), time.Hour))
	}
	require.Len(t, decide(nodes, absentAfter, now).taint, 1, "30 % of four")
}

// A second pass sees what the first one wrote, and writes nothing.
func TestDecisionsAreStable(t *testing.T) {
	for seed := range uint64(500) {
		random := rand.New(rand.NewPCG(seed, 1))
		nodes := randomNodes(random)
		d := decide(nodes, absentAfter, now)
		for i := range nodes {
			if state, writes := d.agents[nodes[i].name]; writes {
				nodes[i].report.agent = &state
			}
			nodes[i].tainted = (nodes[i].tainted || slices.Contains(d.taint, nodes[i].name)) && !slices.Contains(d.untaint, nodes[i].name)
		}
		random.Shuffle(len(nodes), func(i, j int) { nodes[i], nodes[j] = nodes[j], nodes[i] })
		again := decide(nodes, absentAfter, now)
		require.Empty(t, again.agents, "seed %d", seed)
		require.Empty(t, again.taint, "seed %d", seed)
		require.Empty(t, again.untaint, "seed %d", seed)
		require.Equal(t, d.counts, again.counts, "seed %d", seed)
	}
}

func randomNodes(random *rand.Rand) []node {
	states := []v1alpha1.AgentState{
		v1alpha1.AgentReady, v1alpha1.AgentNotReady, v1alpha1.AgentMissing, v1alpha1.AgentExcluded, v1alpha1.AgentUnknown,
	}
	chance := func(in100 int) bool { return random.IntN(100) < in100 }
	nodes := make([]node, 1+random.IntN(20))
	for i := range nodes {
		nodes[i] = node{
			name: fmt.Sprint("node-", i), created: now.Add(-time.Hour), ready: chance(80), tainted: chance(30), wanted: chance(80),
			agent: podState(random.IntN(3)),
		}
		if chance(90) {
			nodes[i].report = &report{guarded: chance(80)}
			if chance(90) {
				nodes[i].report.agent = said(states[random.IntN(len(states))], time.Duration(random.IntN(120))*time.Second)
			}
		}
	}
	return nodes
}

func TestTheNextLookIsWhenANodeIsDue(t *testing.T) {
	require.Zero(t, decide([]node{healthy("a"), without("b", time.Hour)}, absentAfter, now).next)
	began := without("c", time.Hour)
	began.heard = now.Add(-80 * time.Second)
	require.Equal(t, 10*time.Second, decide([]node{began}, absentAfter, now).next, "an operator that began 80 seconds ago")
	require.Equal(t, 20*time.Second, decide([]node{without("a", 30*time.Second), without("b", 40*time.Second)}, absentAfter, now).next)
}

// The guard closes new pods also where other pods have addresses that it doesn't cover.
func TestWhereTheGuardStands(t *testing.T) {
	said := func(status metav1.ConditionStatus, reason string) *v1alpha1.NodeEnforcement {
		stored := &v1alpha1.NodeEnforcement{}
		stored.Status.Conditions = []metav1.Condition{{Type: v1alpha1.NodeConditionPodStartGuarded, Status: status, Reason: reason}}
		return stored
	}
	require.True(t, isGuarded(said(metav1.ConditionTrue, v1alpha1.NodeReasonGuardOnly)))
	require.True(t, isGuarded(said(metav1.ConditionFalse, v1alpha1.NodeReasonPodsOutsidePodCIDRs)))
	require.False(t, isGuarded(said(metav1.ConditionFalse, v1alpha1.NodeReasonNoPodCIDRs)))
	require.False(t, isGuarded(&v1alpha1.NodeEnforcement{}))
}
