package budgettest

import (
	"fmt"
	"sort"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/selector"
)

// Largest returns the specs of the policies that cost the most of those that an agent with
// the limits admits, one of each kind of cost, in a namespace of so many pods. A tenant
// that knows the limits writes these.
func Largest(limits budget.Limits, pods int) []networkingv1.NetworkPolicySpec {
	shapes := []func(int) networkingv1.NetworkPolicySpec{
		func(n int) networkingv1.NetworkPolicySpec { return Peers(n, 0) },
		NamesOfPorts, PeersAndPorts, ManyCIDRs, Exceptions, Everything,
	}
	cluster := selector.NewIndex()
	cluster.SetNamespace(hostileNamespace, nil)
	for number := range pods {
		cluster.SetPod(policy.ParsePod(Pod(hostileNamespace, number, map[string]string{"app": fmt.Sprint("a", number%4)})))
	}
	var specs []networkingv1.NetworkPolicySpec
	for _, shape := range shapes {
		specs = append(specs, shape(largestSize(func(n int) bool { return admitted(limits, shape(n), cluster) })))
	}
	return specs
}

const hostileNamespace = "hostile"

// largestSize returns the largest size that fits, where one fits and all up to the largest
// do.
func largestSize(fits func(int) bool) int {
	n := 1
	for fits(2 * n) {
		n *= 2
	}
	return n + sort.Search(n, func(more int) bool { return !fits(n + more + 1) })
}

// admitted reports whether an API server and the budgets take a policy, and agents
// understand all of it.
func admitted(limits budget.Limits, spec networkingv1.NetworkPolicySpec, pods budget.Pods) bool {
	np := Named(hostileNamespace, "p", 1, spec)
	if !storable(np) {
		return false
	}
	parsed := policy.ParseNetworkPolicy(np)
	endpoints := policy.Endpoints([]*policy.Pod{policy.ParsePod(Pod(np.Namespace, 1, nil))}, []*policy.Policy{parsed})
	return len(parsed.Unreadable) == 0 && len(budget.NewLedger().Decide(limits, endpoints, pods).Closed) == 0
}
