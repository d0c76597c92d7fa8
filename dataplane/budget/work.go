package budget

import "github.com/moat-dev/moat/dataplane/policy"

// About how many microseconds a node takes for one of each, when a policy takes the place of
// another one that is as large: docs/performance/history.md has the times that were measured.
var workOf = Amounts{
	Prefixes: 6,
	Rules:    50, // in each family
	Sets:     120,
	Elements: 3,
}

// Work returns about how many microseconds a node takes to write what a policy becomes, on a
// core of its own. One that exceeds the limits of a policy becomes nothing, and takes none.
func Work(p *policy.Policy, limits Limits, pods Pods) int {
	c := costOf(p, pods, limits.Policy[Sets], limits.Policy[Elements])
	amounts := Amounts{Prefixes: c.prefixes, Rules: max(c.rules[policy.Ingress], c.rules[policy.Egress]), Sets: c.sets, Elements: c.elements}
	if _, over := exceeded(amounts, limits.Policy); over {
		return 0
	}
	amounts[Rules] = families * (c.rules[policy.Ingress] + c.rules[policy.Egress])
	work := 0
	for r, amount := range amounts {
		work += amount * workOf[r]
	}
	return work
}
