package budget

import (
	"time"

	"github.com/moat-dev/moat/dataplane/policy"
)

// About how long a node takes for one of each when a policy takes the place of another one
// that is as large: docs/performance.md has the times that were measured.
var workOf = [Resources]time.Duration{
	Prefixes: 6 * time.Microsecond,
	Rules:    50 * time.Microsecond, // in each family
	Sets:     120 * time.Microsecond,
	Elements: 3 * time.Microsecond,
}

// Work returns about how long a node takes to write what a policy becomes, on a core of its
// own. One that exceeds the limits of a policy becomes nothing, and takes no time.
func Work(p *policy.Policy, limits Limits, pods Pods) time.Duration {
	c := costOf(p, pods, limits.Policy[Sets], limits.Policy[Elements])
	amounts := Amounts{Prefixes: c.prefixes, Rules: max(c.rules[policy.Ingress], c.rules[policy.Egress]), Sets: c.sets, Elements: c.elements}
	if _, over := exceeded(amounts, limits.Policy); over {
		return 0
	}
	amounts[Rules] = families * (c.rules[policy.Ingress] + c.rules[policy.Egress])
	var work time.Duration
	for r, amount := range amounts {
		work += time.Duration(amount) * workOf[r]
	}
	return work
}
