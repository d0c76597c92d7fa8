package main

import (
	"flag"
	"fmt"

	"github.com/moat-dev/moat/dataplane"
	"github.com/moat-dev/moat/dataplane/budget"
)

// budgetOptions are the agent's flags about what policies may take of the node.
type budgetOptions struct {
	mode                    string
	policy, namespace, node string
}

func (o *budgetOptions) addFlags(flags *flag.FlagSet) {
	flags.StringVar(&o.mode, "budget-mode", "",
		"Enforce or Report: close what is over a budget, or report it (default: Enforce, but Report where Moat was upgraded to its first release with budgets)")
	defaults := budget.Defaults()
	flags.StringVar(&o.policy, "budget-policy", "", "`limits` of what one policy becomes, such as sets=100,rules=50 (default "+defaults.Policy.String()+")")
	flags.StringVar(&o.namespace, "budget-namespace", "", "`limits` of what all policies of a namespace become (default "+defaults.Namespace.String()+")")
	flags.StringVar(&o.node, "budget-node", "", "`limits` of what all policies become (default "+defaults.Node.String()+")")
}

func (o *budgetOptions) validateMode() error {
	switch dataplane.BudgetMode(o.mode) {
	case "", dataplane.BudgetEnforce, dataplane.BudgetReport:
		return nil
	}
	return fmt.Errorf("--budget-mode %q: use Enforce or Report, or leave it out", o.mode)
}

func (o *budgetOptions) limits() (budget.Limits, error) {
	limits, most := budget.Defaults(), budget.Ceilings()
	for _, scope := range []struct {
		flag, text string
		amounts    *budget.Amounts
		most       budget.Amounts
	}{
		{"--budget-policy", o.policy, &limits.Policy, most.Policy},
		{"--budget-namespace", o.namespace, &limits.Namespace, most.Namespace},
		{"--budget-node", o.node, &limits.Node, most.Node},
	} {
		var err error
		if *scope.amounts, err = budget.ParseAmounts(scope.text, *scope.amounts, scope.most); err != nil {
			return limits, fmt.Errorf("%s: %w", scope.flag, err)
		}
	}
	return limits, nil
}
