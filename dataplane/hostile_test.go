package dataplane

import (
	"os"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/budget/budgettest"
	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

const (
	// hostileFor names the variable that says for how long TestHostileNamespace runs.
	// Without it a few rounds have to do.
	hostileFor    = "MOAT_HOSTILE_FOR"
	hostileRounds = 2

	// hostileSeed names the variable that says which seed comes first, to see a finding
	// again.
	hostileSeed = "MOAT_HOSTILE_SEED"

	// hostileMost is how many policies the hostile namespace has at a time.
	hostileMost = 30

	// passMost and heapMost bound what one pass takes whatever there is: of the CPU's
	// time, since the machine may be busy, and of the 512 MiB that the chart gives an agent.
	passMost = 5 * time.Second
	heapMost = 256 << 20
)

// Whatever one namespace writes, a pass of the agent is quick and small, what is built is
// within what was counted, and another namespace gets what it would get alone.
func TestHostileNamespace(t *testing.T) {
	end := time.Now()
	if text := os.Getenv(hostileFor); text != "" {
		long, err := time.ParseDuration(text)
		require.NoError(t, err)
		end = time.Now().Add(long)
	}
	first, _ := strconv.ParseUint(os.Getenv(hostileSeed), 10, 64)
	policies, closed, slowest := 0, 0, time.Duration(0)
	for seed := first; seed < first+hostileRounds || time.Now().Before(end); seed++ {
		m, names := newHostileModel(), []string{}
		alone := innocents(passOf(t, m))
		generator := budgettest.New("hostile", seed)
		for range hostileMost {
			np := generator.Next()
			names = append(names, np.Name)
			m.setPolicy(policy.ParseNetworkPolicy(np))
		}
		for edits := range 3 {
			start := cpuTime(t)
			p := passOf(t, m)
			took := cpuTime(t) - start
			slowest = max(slowest, took)
			require.Less(t, took, passMost, "seed %d, edit %d", seed, edits)
			p.requireWithinCount(t, seed)
			require.Equal(t, alone, innocents(p), "seed %d, edit %d", seed, edits)
			requireHeap(t, p, seed)
			policies, closed = policies+hostileMost, closed+len(p.view.expensive)
			np := generator.Next() // in place of another
			np.Name, np.Generation = names[edits], int64(2+edits)
			m.setPolicy(policy.ParseNetworkPolicy(np))
		}
	}
	t.Logf("%d policies in passes, %d of them closed; the slowest pass took %s", policies, closed, slowest)
	require.Positive(t, closed)
	require.Less(t, closed, policies, "some policies are within the budgets")
}

// cpuTime is what this process has used of the CPU.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var usage unix.Rusage
	require.NoError(t, unix.Getrusage(unix.RUSAGE_SELF, &usage))
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// newHostileModel has pods of two namespaces on the node and elsewhere, and the policies
// of the innocent one.
func newHostileModel() *model {
	m := newModel("node-1")
	for number := range 1200 {
		namespace := []string{"hostile", "innocent"}[number%2]
		pod := budgettest.Pod(namespace, number, map[string]string{"app": []string{"a0", "a1", "x1", "x2"}[number/2%4]})
		if number < 200 {
			pod.Spec.NodeName = "node-1"
		}
		m.setPod(policy.ParsePod(pod))
	}
	m.setNamespace(&namespace{name: "hostile"})
	m.setNamespace(&namespace{name: "innocent"})
	m.setPolicy(policy.ParseNetworkPolicy(budgettest.Named("innocent", "in", 100, budgettest.Peers(3, 20))))
	m.setPolicy(policy.ParseNetworkPolicy(budgettest.Named("innocent", "out", 101, budgettest.NamesOfPorts(3))))
	m.setPolicy(policy.ParseNetworkPolicy(budgettest.Named("innocent", "far", 102, budgettest.Exceptions4(10))))
	return m
}

// hostilePass is what one pass of the agent makes before anything is written.
type hostilePass struct {
	view    *view
	used    budget.Amounts
	outputs []compile.Output
	sets    map[string]ruleset.Set
}

func passOf(t *testing.T, m *model) *hostilePass {
	t.Helper()
	e := newEnforcer("")
	require.True(t, e.look(m))
	p := &hostilePass{view: e.view, used: e.budgets.used}
	for _, family := range ruleset.Families() {
		p.outputs = append(p.outputs, compile.Compile(compile.Host{}, family, e.view.endpoints, compile.Links{}, compile.Guard{}))
	}
	m.index.Want(wantedSets(p.outputs))
	p.sets = fullSets(p.outputs, m.index)
	return p
}

// requireWithinCount compares what was built with what was counted.
func (p *hostilePass) requireWithinCount(t *testing.T, seed uint64) {
	t.Helper()
	var built budget.Amounts
	peers := wantedSets(p.outputs)
	for name, set := range p.sets {
		switch _, follows := peers[name]; {
		case follows:
			built[budget.Sets]++
			built[budget.Elements] += len(set.Members)
		case set.Type == ruleset.HashNet:
			built[budget.Sets]++
			built[budget.Prefixes] += len(set.Members)
		}
	}
	limits := budget.Defaults()
	for i := range p.outputs {
		for _, chain := range p.outputs[i].Ruleset.Chains {
			if origins := p.outputs[i].Origins[chain.Name]; len(origins) > 0 && origins[0] != allowsNothing {
				rules := len(chain.Rules) - 1 // the last one drops
				require.LessOrEqual(t, rules, limits.Policy[budget.Rules], "rules that one packet is compared with")
				built[budget.Rules] += rules
			}
		}
	}
	for r := range budget.Resources {
		require.LessOrEqual(t, built[r], p.used[r], "%s, seed %d", r, seed)
		require.LessOrEqual(t, p.used[r], limits.Node[r], "%s, seed %d", r, seed)
	}
}

// innocents are the rules and the sets of the innocent namespace.
func innocents(p *hostilePass) map[string]any {
	found := map[string]any{}
	for i := range p.outputs {
		for _, chain := range p.outputs[i].Ruleset.Chains {
			origins := p.outputs[i].Origins[chain.Name]
			if !slices.ContainsFunc(origins, func(o *policy.Policy) bool { return o.Namespace == "innocent" }) {
				continue
			}
			found[p.outputs[i].Ruleset.Family.String()+chain.Name] = chain.Rules
			for _, rule := range chain.Rules {
				for _, match := range rule.Match {
					if set, looksUp := match.(ruleset.SetMatch); looksUp {
						found[set.Set] = p.sets[set.Set]
					}
				}
			}
		}
	}
	return found
}

// requireHeap bounds what the agent holds while it has a pass in its hands.
func requireHeap(t *testing.T, p *hostilePass, seed uint64) {
	t.Helper()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	require.Less(t, memory.HeapAlloc, uint64(heapMost), "seed %d", seed)
	runtime.KeepAlive(p)
}
