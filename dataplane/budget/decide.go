package budget

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Ledger remembers what policies cost, so that each is counted once. The pods that its selectors
// match are counted at that time too: a policy that later grows with the cluster closes no pod. A
// Ledger must not be used by several goroutines at once.
type Ledger struct {
	// Standing reports whether a policy was in force on the node before the ledger was
	// made. Of the limits of elements, only the ceiling closes such a policy: it may have
	// grown since it came. Where Standing is nil, no policy was in force.
	Standing func(*policy.Policy) bool

	costs map[*policy.Policy]*cost
}

// limitsOf returns the limits that hold for a policy. Beyond ceiling, a policy is closed even if
// it was in force before.
func (l *Ledger) limitsOf(p *policy.Policy, limits, ceiling Amounts) Amounts {
	if l.Standing != nil && l.Standing(p) {
		limits[Elements] = max(limits[Elements], ceiling[Elements])
	}
	return limits
}

// NewLedger returns a ledger that knows no policy.
func NewLedger() *Ledger { return &Ledger{costs: map[*policy.Policy]*cost{}} }

// Decision says what is closed.
type Decision struct {
	// Closed are the policies that are over a budget, with the first limit that each
	// exceeds. The caller has to close their pods, in the directions in which they isolate
	// them.
	Closed map[*policy.Policy]*Excess

	// Used is an upper bound of what all other policies of the node take together.
	Used Amounts
}

// Decide says which policies of the endpoints are too expensive.
//
// A policy that exceeds the limit of one policy is closed for itself. Of the policies of
// one pod, and of those of one namespace, the oldest come first (by creation, then name),
// and each that doesn't fit beside the older ones is closed: a new policy never closes an
// older one. On the node the namespaces that take least come first, so that one that takes
// much closes its own.
func (l *Ledger) Decide(limits Limits, endpoints []policy.Endpoint, pods Pods) Decision {
	d := &decider{limits: limits, ledger: l, closed: map[*policy.Policy]*Excess{}, rules: map[*policy.Policy]int{}}
	d.eachAlone(l.follow(endpoints, pods))
	for i := range endpoints {
		for direction := range policy.Direction(policy.Directions) {
			d.onePod(direction, &endpoints[i])
		}
	}
	d.countRules(endpoints)
	return Decision{Closed: d.closed, Used: d.together()}
}

// follow counts the policies that are new, forgets those that have gone, and returns the
// present ones with the oldest first.
func (l *Ledger) follow(endpoints []policy.Endpoint, pods Pods) []*policy.Policy {
	most := Ceilings().Policy
	present := map[*policy.Policy]*cost{}
	for i := range endpoints {
		for _, isolating := range endpoints[i].Isolating {
			for _, p := range isolating {
				if present[p] != nil {
					continue
				}
				if present[p] = l.costs[p]; present[p] == nil {
					present[p] = costOf(p, pods, most[Sets], most[Elements])
				}
			}
		}
	}
	l.costs = present
	return slices.SortedFunc(maps.Keys(present), older)
}

// older orders policies by their age. Names decide between those of one second.
func older(a, b *policy.Policy) int {
	return cmp.Or(cmp.Compare(a.Created, b.Created), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

type decider struct {
	limits Limits
	ledger *Ledger
	closed map[*policy.Policy]*Excess
	open   []*policy.Policy       // the oldest first; some may be in closed
	rules  map[*policy.Policy]int // in the kernel, in both families
}

func (d *decider) close(p *policy.Policy, scope Scope, r Resource, number, limit int) {
	d.closed[p] = &Excess{Resource: r, Scope: scope, Number: number, Limit: limit}
}

// eachAlone closes the policies that are too expensive by themselves.
func (d *decider) eachAlone(policies []*policy.Policy) {
	for _, p := range policies {
		c := d.ledger.costs[p]
		amounts := Amounts{Prefixes: c.prefixes, Rules: max(c.rules[policy.Ingress], c.rules[policy.Egress]), Sets: c.sets, Elements: c.elements}
		if !d.over(p, Policy, amounts, d.ledger.limitsOf(p, d.limits.Policy, Ceilings().Policy)) {
			d.open = append(d.open, p)
		}
	}
}

// exceeded returns the first resource of which there is more than the limit.
func exceeded(amounts, limits Amounts) (Resource, bool) {
	for r := range Resources {
		if amounts[r] > limits[r] {
			return r, true
		}
	}
	return 0, false
}

// isClosed reports whether one of the policies is closed: then the pod has no rules.
func (d *decider) isClosed(isolating []*policy.Policy) bool {
	return slices.ContainsFunc(isolating, func(p *policy.Policy) bool { return d.closed[p] != nil })
}

// onePod bounds the rules that a packet is compared with.
func (d *decider) onePod(direction policy.Direction, e *policy.Endpoint) {
	limit, rules := d.limits.Policy[Rules], 0
	if d.isClosed(e.Isolating[direction]) {
		return
	}
	for _, p := range e.Isolating[direction] {
		rules += d.ledger.costs[p].rules[direction]
	}
	if rules <= limit {
		return
	}
	rules = 0
	for _, p := range slices.SortedFunc(slices.Values(e.Isolating[direction]), older) {
		more := d.ledger.costs[p].rules[direction]
		if rules+more > limit {
			d.close(p, Pod, Rules, rules+more, limit)
			continue
		}
		rules += more
	}
}

// countRules counts the rules of each policy in all chains: pods share one that are
// isolated by the same policies and resolve named ports alike.
func (d *decider) countRules(endpoints []policy.Endpoint) {
	seen := map[string]bool{}
	numbers := map[*policy.Policy]int{}
	for i, p := range d.open {
		numbers[p] = i
	}
	for i := range endpoints {
		for direction, isolating := range endpoints[i].Isolating {
			if d.isClosed(isolating) {
				continue
			}
			profile, named := strconv.AppendInt(nil, int64(direction), 10), false
			for _, p := range isolating {
				profile = strconv.AppendInt(append(profile, ' '), int64(numbers[p]), 10)
				named = named || d.ledger.costs[p].named
			}
			if named && policy.Direction(direction) == policy.Ingress {
				profile = fmt.Append(profile, endpoints[i].Pod.Ports)
			}
			if seen[string(profile)] {
				continue
			}
			seen[string(profile)] = true
			for _, p := range isolating {
				d.rules[p] += d.ledger.costs[p].rules[direction] * families
			}
		}
	}
}

// together closes what is over the budgets of namespaces and of the node, and returns what
// the rest takes.
func (d *decider) together() Amounts {
	byNamespace := map[string][]*policy.Policy{}
	takes := map[string]Amounts{}
	var all Amounts
	for _, p := range d.open {
		if d.closed[p] == nil {
			byNamespace[p.Namespace] = append(byNamespace[p.Namespace], p)
			amounts := d.alone(p)
			takes[p.Namespace] = takes[p.Namespace].plus(amounts)
			all = all.plus(amounts)
		}
	}
	if d.fits(all, takes) {
		return all
	}
	share := func(namespace string) float64 { return takes[namespace].share(d.limits.Node) }
	order := slices.SortedFunc(maps.Keys(byNamespace), func(a, b string) int {
		return cmp.Or(cmp.Compare(share(a), share(b)), cmp.Compare(a, b))
	})
	node := newTally()
	for _, name := range order {
		namespace := newTally()
		for _, p := range byNamespace[name] {
			d.admit(p, namespace, node)
		}
	}
	return node.used
}

// alone is what a policy takes if it shares no set with another one.
func (d *decider) alone(p *policy.Policy) Amounts {
	c := d.ledger.costs[p]
	return Amounts{Prefixes: c.prefixes, Rules: d.rules[p], Sets: c.sets, Elements: c.elements}
}

// fits reports whether everything is within the budgets even if nothing is shared. On nearly all
// nodes it is, which saves a comparison of each selector.
func (d *decider) fits(all Amounts, takes map[string]Amounts) bool {
	_, over := exceeded(all, d.limits.Node)
	for _, amounts := range takes {
		_, more := exceeded(amounts, d.limits.Namespace)
		over = over || more
	}
	return !over
}

// admit adds a policy to both tallies, or closes it.
func (d *decider) admit(p *policy.Policy, namespace, node *tally) {
	c := d.ledger.costs[p]
	inNamespace, inNode := namespace.with(c, d.rules[p]), node.with(c, d.rules[p])
	if d.over(p, Namespace, inNamespace, d.ledger.limitsOf(p, d.limits.Namespace, Ceilings().Namespace)) ||
		d.over(p, Node, inNode, d.ledger.limitsOf(p, d.limits.Node, Ceilings().Node)) {
		return
	}
	namespace.add(c, inNamespace)
	node.add(c, inNode)
}

func (d *decider) over(p *policy.Policy, scope Scope, amounts, limits Amounts) bool {
	r, over := exceeded(amounts, limits)
	if over {
		d.close(p, scope, r, amounts[r], limits[r])
	}
	return over
}
