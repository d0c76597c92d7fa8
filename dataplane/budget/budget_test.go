package budget_test

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/budget/budgettest"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/selector"
)

// node is what one node has, with the pods of the cluster.
type node struct {
	local []*policy.Pod
	index *selector.Index
}

// newNode has local pods in each namespace, and further pods elsewhere in the first.
func newNode(local, remote int, namespaces ...string) *node {
	n := &node{index: selector.NewIndex()}
	number := 0
	for _, namespace := range namespaces {
		n.index.SetNamespace(namespace, nil)
		for i := range local {
			number++
			pod := policy.ParsePod(budgettest.Pod(namespace, number, map[string]string{"app": fmt.Sprint("a", i%500)}))
			n.local = append(n.local, pod)
			n.index.SetPod(pod)
		}
	}
	for i := range remote {
		number++
		n.index.SetPod(policy.ParsePod(budgettest.Pod(namespaces[0], number, map[string]string{"app": fmt.Sprint("a", i%500)})))
	}
	return n
}

func parse(objects ...*networkingv1.NetworkPolicy) []*policy.Policy {
	policies := make([]*policy.Policy, len(objects))
	for i := range objects {
		policies[i] = policy.ParseNetworkPolicy(objects[i])
	}
	return policies
}

// decide says what is closed, by the names of the policies.
func (n *node) decide(limits budget.Limits, policies ...*policy.Policy) (map[string]*budget.Excess, budget.Amounts) {
	decision := budget.NewLedger().Decide(limits, policy.Endpoints(n.local, policies), n.index)
	closed := map[string]*budget.Excess{}
	for p, excess := range decision.Closed {
		closed[p.Key().String()] = excess
	}
	return closed, decision.Used
}

// Each row is a policy that any editor of a namespace may write. To refuse it, in
// whatever mode, takes little memory: what it would become isn't built.
func TestHostilePoliciesAreRefusedCheaply(t *testing.T) {
	for name, test := range map[string]struct {
		spec     networkingv1.NetworkPolicySpec
		resource budget.Resource
		least    int
		megabyte uint64
	}{
		"10,000 exceptions":                    {budgettest.Exceptions(10_000), budget.Prefixes, 1_000_000, 12},
		"180 selectors with 180 names":         {budgettest.NamesOfPorts(180), budget.Rules, 32_400, 2},
		"2,500 selectors of everything":        {budgettest.Everything(2_500), budget.Elements, 1_000_001, 12},
		"400 peers with 2,000 groups of ports": {budgettest.Peers(400, 30_000), budget.Rules, 800_000, 16},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(1, 500, "hostile")
			object := budgettest.Named("hostile", "p", 1, test.spec)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			closed, used := n.decide(budget.Ceilings(), parse(object)...)
			runtime.ReadMemStats(&after)

			excess := closed["hostile/p"]
			require.NotNil(t, excess)
			require.Equal(t, test.resource, excess.Resource, excess.Error())
			require.GreaterOrEqual(t, excess.Number, test.least)
			require.Zero(t, used)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, test.megabyte<<20, "bytes, with what it takes to read the object")
		})
	}
}

// What the largest users write is within the budgets.
func TestDefaultsAdmit(t *testing.T) {
	for name, spec := range map[string]networkingv1.NetworkPolicySpec{
		"10,000 CIDRs":                     budgettest.ManyCIDRs(10_000),
		"0.0.0.0/0 except 2,000 /32s":      budgettest.Exceptions4(2_000),
		"200 peers with 20 ports":          budgettest.Peers(200, 20),
		"50 peers with 20 names":           names(50, 20),
		"1,000 selectors":                  budgettest.Peers(1_000, 0),
		"30 selectors that match all pods": budgettest.Everything(30),
	} {
		t.Run(name, func(t *testing.T) {
			closed, _ := newNode(2, 5_000, "a").decide(budget.Defaults(), parse(budgettest.Named("a", "p", 1, spec))...)
			require.Empty(t, closed)
		})
	}
}

func names(peers, ports int) networkingv1.NetworkPolicySpec {
	spec := budgettest.NamesOfPorts(peers)
	spec.Egress[0].Ports = spec.Egress[0].Ports[:ports]
	return spec
}

// The largest admitted policies of the benchmark are at the edge: each takes nearly all of
// one resource, or as much as an API server stores.
func TestTheLargestPoliciesAreNearTheLimits(t *testing.T) {
	n := newNode(1, 199, "hostile")
	limits, nearly := budget.Defaults(), budget.Amounts{}
	for r := range budget.Resources {
		limits.Policy[r] /= 10 // to be quick
	}
	for i, spec := range budgettest.Largest(limits, 200) {
		closed, used := n.decide(limits, parse(budgettest.Named("hostile", "p", 1, spec))...)
		require.Empty(t, closed, i)
		for r := range budget.Resources {
			nearly[r] = max(nearly[r], 100*used[r]/limits.Policy[r])
		}
	}
	for r := range budget.Resources {
		require.GreaterOrEqual(t, nearly[r], 80, "per cent of the limit of %s", r)
	}
}

// A namespace of 5,000 pods has a policy for each of its 500 applications, and a hundred
// of its pods are on the node.
func TestDefaultsAdmitALargeNamespace(t *testing.T) {
	n := newNode(100, 4_900, "a")
	var objects []*networkingv1.NetworkPolicy
	for i := range 500 {
		spec := budgettest.Peers(5, 3)
		spec.PodSelector.MatchLabels = map[string]string{"app": fmt.Sprint("a", i)}
		spec.Ingress[0].From[0].PodSelector.MatchLabels = nil // the whole namespace
		spec.Ingress[0].From[1].PodSelector.MatchLabels = map[string]string{"app": fmt.Sprint("a", i+1)}
		objects = append(objects, budgettest.Named("a", fmt.Sprint("p", i), i, spec))
	}
	closed, used := n.decide(budget.Defaults(), parse(objects...)...)
	require.Empty(t, closed)
	require.Less(t, used[budget.Elements], 20_000, "policies share the set of the whole namespace")
}

// The oldest policies of a namespace stay, whatever comes after them, and no other
// namespace is affected.
func TestTheYoungestPoliciesOfTheNamespaceClose(t *testing.T) {
	n := newNode(2, 0, "a", "b")
	limits := budget.Defaults()
	limits.Namespace[budget.Sets] = 100
	objects := []*networkingv1.NetworkPolicy{budgettest.Named("b", "p", 9, budgettest.Peers(20, 1))}
	for i := range 4 {
		spec := budgettest.NamesOfPorts(4) // 16 names and no set else, in two families
		objects = append(objects, budgettest.Named("a", fmt.Sprint("p", 3-i), 3-i, spec))
	}
	closed, _ := n.decide(limits, parse(objects...)...)
	require.Len(t, closed, 1)
	require.Equal(t, &budget.Excess{Resource: budget.Sets, Scope: budget.Namespace, Number: 128, Limit: 100}, closed["a/p3"])

	same, _ := n.decide(limits, parse(budgettest.Named("a", "y", 1, budgettest.NamesOfPorts(6)), budgettest.Named("a", "x", 1, budgettest.NamesOfPorts(6)))...)
	require.Contains(t, same, "a/y", "of two that were made in one second the second by name")
	require.Len(t, same, 1)
}

// Above the node's budget the namespace that takes most closes its own.
func TestTheLargestNamespaceCloses(t *testing.T) {
	n := newNode(2, 0, "a", "b", "c")
	limits := budget.Defaults()
	limits.Node[budget.Prefixes] = 1_000
	closed, used := n.decide(limits, parse(
		budgettest.Named("a", "old", 1, budgettest.ManyCIDRs(500)),
		budgettest.Named("a", "young", 2, budgettest.ManyCIDRs(400)),
		budgettest.Named("b", "p", 3, budgettest.ManyCIDRs(300)),
		budgettest.Named("c", "p", 4, budgettest.ManyCIDRs(200)),
	)...)
	require.Equal(t, map[string]*budget.Excess{"a/young": {Resource: budget.Prefixes, Scope: budget.Node, Number: 1_400, Limit: 1_000}}, closed)
	require.Equal(t, 1_000, used[budget.Prefixes])
}

// The policies of one pod add up to one chain.
func TestThePoliciesOfAPodAddUp(t *testing.T) {
	limits := budget.Defaults()
	limits.Policy[budget.Rules] = 50
	closed, _ := newNode(3, 0, "a").decide(limits, parse(
		budgettest.Named("a", "p1", 1, budgettest.Peers(20, 1)),
		budgettest.Named("a", "p2", 2, budgettest.Peers(20, 1)),
		budgettest.Named("a", "p3", 3, budgettest.Peers(20, 1)),
	)...)
	require.Equal(t, map[string]*budget.Excess{"a/p3": {Resource: budget.Rules, Scope: budget.Pod, Number: 60, Limit: 50}}, closed)
}

// Pods that come after a policy close nothing.
func TestGrowthClosesNothing(t *testing.T) {
	n := newNode(1, 10, "a")
	limits := budget.Defaults()
	limits.Policy[budget.Elements] = 1_000
	endpoints := policy.Endpoints(n.local, parse(budgettest.Named("a", "p", 1, budgettest.Everything(10))))
	ledger := budget.NewLedger()
	require.Empty(t, ledger.Decide(limits, endpoints, n.index).Closed)
	for i := range 500 {
		n.index.SetPod(policy.ParsePod(budgettest.Pod("a", 1000+i, nil)))
	}
	require.Empty(t, ledger.Decide(limits, endpoints, n.index).Closed)
	again := budget.NewLedger()
	require.NotEmpty(t, again.Decide(limits, endpoints, n.index).Closed, "as a new policy it would be closed")
	again.Standing = func(p *policy.Policy) bool { return p.Name == "p" }
	require.Empty(t, again.Decide(limits, endpoints, n.index).Closed, "another agent finds it in force")
}

func TestParseAmounts(t *testing.T) {
	most := budget.Ceilings().Policy
	amounts, err := budget.ParseAmounts("sets=7,rules=8", budget.Defaults().Policy, most)
	require.NoError(t, err)
	require.Equal(t, "prefixes=100000,rules=8,sets=7,elements=500000", amounts.String())
	again, err := budget.ParseAmounts(amounts.String(), budget.Amounts{}, most)
	require.NoError(t, err)
	require.Equal(t, amounts, again)
	for text, wrong := range map[string]string{
		"set=7":            `"set": want one of prefixes, rules, sets, elements`,
		"sets":             `"sets": want a number of sets from 1 to 40000`,
		"sets=0":           `"sets=0": want a number of sets from 1 to 40000`,
		"sets=1,rules=1e9": `"rules=1e9": want a number of rules from 1 to 20000`,
	} {
		_, err := budget.ParseAmounts(text, budget.Amounts{}, most)
		require.ErrorContains(t, err, wrong)
	}
}

// BenchmarkDecide is what a change of a local pod or policy costs where 100 pods of a node
// have five policies each, none of them new.
func BenchmarkDecide(b *testing.B) {
	n := newNode(100, 4_900, "a")
	var objects []*networkingv1.NetworkPolicy
	for i := range 500 {
		spec := budgettest.Peers(5, 3)
		spec.PodSelector.MatchLabels = map[string]string{"app": fmt.Sprint("a", i/5)}
		objects = append(objects, budgettest.Named("a", fmt.Sprint("p", i), i, spec))
	}
	endpoints := policy.Endpoints(n.local, parse(objects...))
	ledger := budget.NewLedger()
	for b.Loop() {
		if len(ledger.Decide(budget.Defaults(), endpoints, n.index).Closed) > 0 {
			b.Fatal("a policy is closed")
		}
	}
}

// What is large by any resource is much work, and what is closed is none.
func TestWork(t *testing.T) {
	n := newNode(1, 1000, "a")
	work := func(spec networkingv1.NetworkPolicySpec) int {
		return budget.Work(parse(budgettest.Named("a", "p", 1, spec))[0], budget.Defaults(), n.index)
	}
	small := work(budgettest.Peers(2, 2))
	require.Positive(t, small)
	for name, large := range map[string]networkingv1.NetworkPolicySpec{
		"prefixes": budgettest.ManyCIDRs(10_000), "rules": budgettest.Peers(30, 15*30), "sets": budgettest.Peers(500, 1), "elements": budgettest.Everything(100),
	} {
		require.Greater(t, work(large), 10*small, name)
	}
	require.Zero(t, work(budgettest.NamesOfPorts(180)))
	require.Zero(t, work(budgettest.Exceptions(10_000)))
}
