package budget

import (
	"fmt"
	"strconv"
	"strings"
)

// Resource is something of a node that policies use.
type Resource uint8

// The resources. Their values index Amounts.
const (
	// Prefixes are the ranges of addresses of ipBlocks without their exceptions. Each is an
	// element of a set.
	Prefixes Resource = iota

	// Rules of one policy, and of all policies of one pod, are those with which the kernel
	// compares a packet of one direction, one after the other. Rules of a namespace or a
	// node are all in the kernel, of both families.
	Rules

	// Sets are ipsets, of both families: one for each selector, for each combination of
	// a selector with the name of an egress port, and for the blocks of each rule.
	Sets

	// Elements are the pods' addresses that the sets hold together.
	Elements

	// Resources is the number of resources.
	Resources
)

var resourceNames = [Resources]string{"prefixes", "rules", "sets", "elements"}

// String returns the name that flags and values use.
func (r Resource) String() string { return resourceNames[r] }

// Amounts holds a number for each resource.
type Amounts [Resources]int

// String writes the amounts as ParseAmounts reads them.
func (a Amounts) String() string {
	parts := make([]string, Resources)
	for r := range Resources {
		parts[r] = fmt.Sprintf("%s=%d", r, a[r])
	}
	return strings.Join(parts, ",")
}

func (a Amounts) plus(other Amounts) Amounts {
	for r := range a {
		a[r] += other[r]
	}
	return a
}

// share returns the largest quotient of an amount and its limit.
func (a Amounts) share(limits Amounts) float64 {
	largest := 0.0
	for r := range a {
		largest = max(largest, float64(a[r])/float64(limits[r]))
	}
	return largest
}

// ParseAmounts reads "prefixes=1,rules=2,sets=3,elements=4". Resources that the text
// leaves out keep the amount of base. An amount is at least 1, and at most that of most.
func ParseAmounts(text string, base, most Amounts) (Amounts, error) {
	if text == "" {
		return base, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(part, "=")
		r, err := resourceOf(name)
		if err != nil {
			return base, err
		}
		amount, err := strconv.Atoi(number)
		if err != nil || amount < 1 || amount > most[r] {
			return base, fmt.Errorf("%q: want a number of %s from 1 to %d, beyond which an agent may die", part, r, most[r])
		}
		base[r] = amount
	}
	return base, nil
}

func resourceOf(name string) (Resource, error) {
	for r := range Resources {
		if resourceNames[r] == name {
			return r, nil
		}
	}
	return 0, fmt.Errorf("%q: want one of %s", name, strings.Join(resourceNames[:], ", "))
}

// Scope says for which policies together a limit holds.
type Scope uint8

// The scopes.
const (
	// Policy: one policy, by itself.
	Policy Scope = iota

	// Pod: all policies of one pod together. Its limit of rules is that of a policy.
	Pod

	// Namespace: all policies of a namespace that select a pod of the node.
	Namespace

	// Node: all policies that select a pod of the node.
	Node
)

// Limits says how much there may be of each resource.
type Limits struct {
	Policy    Amounts
	Namespace Amounts
	Node      Amounts
}

// Defaults returns the limits that an agent has unless it is told otherwise. They are
// for an agent with 512 MiB of memory, and for changes that take a second at most.
func Defaults() Limits {
	return Limits{
		// 10,000 CIDRs, 2,000 exceptions, 1,000 selectors, or 50 with 20 port names each. The
		// kernel searches all sets for each set that is made, and for each set that a
		// restore names (find_free_id and find_set_and_id in
		// net/netfilter/ipset/ip_set_core.c). So to replace 5,000 sets takes some four times
		// as long as 2,500, while other namespaces' changes wait.
		Policy:    Amounts{Prefixes: 100_000, Rules: 2_000, Sets: 2_500, Elements: 500_000},
		Namespace: Amounts{Prefixes: 150_000, Rules: 30_000, Sets: 3_000, Elements: 600_000},
		// The kernel has room for 65,535 sets of all programs (ip_set_max in
		// net/netfilter/ipset/ip_set_core.c).
		Node: Amounts{Prefixes: 300_000, Rules: 60_000, Sets: 40_000, Elements: 800_000},
	}
}

// Ceilings returns the largest limits. They hold in every mode: beyond them the kernel may kill
// the agent for its memory, and no change of any policy is enforced.
func Ceilings() Limits {
	return Limits{
		Policy:    Amounts{Prefixes: 400_000, Rules: 20_000, Sets: 40_000, Elements: 1_000_000},
		Namespace: Amounts{Prefixes: 600_000, Rules: 120_000, Sets: 50_000, Elements: 1_200_000},
		Node:      Amounts{Prefixes: 600_000, Rules: 120_000, Sets: 60_000, Elements: 1_200_000},
	}
}

// Excess says that a policy is too expensive. It is an error whose text is for the
// policy's author.
type Excess struct {
	Resource Resource
	Scope    Scope

	// Number is a lower bound of the amount that there would be, Limit the amount that is
	// allowed.
	Number, Limit int
}

// scopes and remedies are what an Excess says.
var (
	scopes = [...]string{
		Policy: "a policy", Pod: "all policies of a pod, which the youngest exceeds",
		Namespace: "a namespace, which the youngest policies exceed", Node: "the node, which the youngest policies of this namespace exceed",
	}
	remedies = [Resources]string{
		Prefixes: "use fewer ipBlocks and exceptions",
		Rules:    "use fewer peers, ranges of ports (endPort) and fewer policies for a pod",
		Sets:     "use labels that more pods share, and numbers of ports for names",
		Elements: "use fewer selectors that match many pods",
	}
)

// Error implements error.
func (e *Excess) Error() string {
	return fmt.Sprintf("its pods are closed: %d %s, and %d are the limit of %s; %s, or ask for more (agent.budgets)",
		e.Number, e.Resource, e.Limit, scopes[e.Scope], remedies[e.Resource])
}
