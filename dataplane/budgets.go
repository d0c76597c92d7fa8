package dataplane

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policystore"
	"github.com/moat-dev/moat/dataplane/report"
)

// BudgetMode says what is done about a policy that is over a budget.
type BudgetMode string

// The modes.
const (
	// BudgetEnforce closes its pods.
	BudgetEnforce BudgetMode = "Enforce"

	// BudgetReport enforces the policy and reports it. Beyond the ceilings it is closed
	// all the same.
	BudgetReport BudgetMode = "Report"
)

// memoryOfNamespace is the resource that policystore bounds: the agent's memory that the
// policies of one namespace take.
const memoryOfNamespace = "namespace_memory"

// nearlyUsed is the part of a budget of the node from which the node warns.
const nearlyUsed = 0.8

// budgets decides which policies are too expensive for the node.
type budgets struct {
	limits budget.Limits
	mode   BudgetMode
	ledger *budget.Ledger

	memory   func() float64 // which part of its share of the memory the largest namespace takes
	used     budget.Amounts
	closed   []string // policies, as namespace/name
	over     []string // that are over a budget and enforced all the same
	sets     int      // in the kernel
	elements int      // in the kernel, of sets that follow pods
}

func newBudgets(limits budget.Limits, mode BudgetMode) *budgets {
	return &budgets{limits: limits, mode: mode, ledger: budget.NewLedger(), memory: func() float64 { return 0 }}
}

// closeExpensive closes the pods of the view that policies isolate which are over
// budget: no rule and no set is made for such a policy.
func (b *budgets) closeExpensive(v *view, pods budget.Pods) {
	limits := b.limits
	if b.mode == BudgetReport {
		limits = budget.Ceilings()
	}
	decision := b.ledger.Decide(limits, v.Endpoints, pods)
	b.used, b.closed, b.over = decision.Used, namesOf(decision.Closed), nil
	if b.mode == BudgetReport {
		would := b.ledger.Decide(b.limits, v.Endpoints, pods)
		maps.DeleteFunc(would.Closed, func(p *policy.Policy, _ *budget.Excess) bool { return decision.Closed[p] != nil })
		b.over = namesOf(would.Closed)
	}
	v.expensive = make(map[types.UID]error, len(decision.Closed))
	for _, p := range v.Selecting {
		if p.Omitted {
			v.expensive[p.UID] = policystore.ErrOmitted
			b.closed = append(b.closed, p.Key().String())
		}
	}
	for p, excess := range decision.Closed {
		v.expensive[p.UID] = excess
	}
	v.Endpoints = closeThose(v.Endpoints, func(p *policy.Policy) bool { return p.Omitted || decision.Closed[p] != nil })
}

// work is about how long the node takes to write the rules and sets of a policy. One that
// selects no pod of the node has none.
func (b *budgets) work(v *view, p *policy.Policy, pods budget.Pods) time.Duration {
	if len(policy.Selecting(v.Local, []*policy.Policy{p})) == 0 {
		return 0
	}
	limits := b.limits
	if b.mode == BudgetReport {
		limits = budget.Ceilings()
	}
	return time.Duration(budget.Work(p, limits, pods)) * time.Microsecond
}

func namesOf(policies map[*policy.Policy]*budget.Excess) []string {
	var names []string
	for p := range policies {
		names = append(names, p.Key().String())
	}
	slices.Sort(names)
	return names
}

// closeThose returns the endpoints with those closed, in each direction, that one of the
// policies isolates.
func closeThose(endpoints []policy.Endpoint, held func(*policy.Policy) bool) []policy.Endpoint {
	closed := slices.Clone(endpoints)
	for i := range closed {
		for d, isolating := range closed[i].Isolating {
			if slices.ContainsFunc(isolating, held) {
				closed[i].Isolating[d] = []*policy.Policy{policy.AllowsNothing}
			}
		}
	}
	return closed
}

// ratios returns which part of the node's budgets is used: of sets and elements what the
// kernel holds, of the rest what was counted.
func (b *budgets) ratios() [budget.Resources]float64 {
	var ratios [budget.Resources]float64
	used := b.used
	used[budget.Sets], used[budget.Elements] = b.sets, b.elements
	for r := range ratios {
		ratios[r] = float64(used[r]) / float64(b.limits.Node[r])
	}
	return ratios
}

// condition is what the node says about its budgets. It names no numbers, which
// would change, and be written, with each pod.
func (b *budgets) condition() metav1.Condition {
	condition := metav1.Condition{
		Type:    v1alpha1.NodeConditionWithinBudget,
		Status:  metav1.ConditionTrue,
		Reason:  v1alpha1.NodeReasonAffordable,
		Message: "What the node's policies become in its kernel is within all budgets",
	}
	var nearly []string
	for r, ratio := range b.ratios() {
		if ratio >= nearlyUsed {
			nearly = append(nearly, budget.Resource(r).String())
		}
	}
	if b.memory() >= nearlyUsed {
		nearly = append(nearly, "memory of a namespace")
	}
	switch {
	case len(b.closed) > 0:
		condition.Status, condition.Reason = metav1.ConditionFalse, v1alpha1.NodeReasonTooExpensive
		condition.Message = report.Message(errors.New("The pods of policies that are over budget are closed: " + strings.Join(b.closed, ", ")))
	case len(b.over) > 0:
		condition.Status, condition.Reason = metav1.ConditionFalse, v1alpha1.NodeReasonTooExpensive
		condition.Message = report.Message(errors.New("Policies are over budget, and enforced since agent.budgets.mode is Report: " + strings.Join(b.over, ", ")))
	case len(nearly) > 0:
		condition.Reason = v1alpha1.NodeReasonBudgetNearlyUsed
		condition.Message = fmt.Sprintf("More than %.0f %% of the node's budget is used of: %s. Pods that come close nothing; a new policy that needs more is closed",
			100*nearlyUsed, strings.Join(nearly, ", "))
	}
	return condition
}

// tellBudget brings the metric and the condition of the budgets up to date. It reports
// whether the condition changed.
func (a *Agent) tellBudget() (changed bool) {
	budgets := a.enforcer.budgets
	for resource, ratio := range budgets.ratios() {
		a.enforcer.metrics.BudgetUsed(budget.Resource(resource).String(), ratio)
	}
	a.enforcer.metrics.BudgetUsed(memoryOfNamespace, budgets.memory())
	condition, before := budgets.condition(), a.reporter.TakeBudget()
	if condition == before {
		return false
	}
	a.reporter.SetBudget(condition)
	if condition.Reason != before.Reason && (before.Type != "" || condition.Reason != v1alpha1.NodeReasonAffordable) {
		a.log.Info("What the node's policies take of its budgets changed", "reason", condition.Reason, "message", condition.Message)
		kind := corev1.EventTypeWarning
		if condition.Reason == v1alpha1.NodeReasonAffordable {
			kind = corev1.EventTypeNormal
		}
		a.news.Event(kind, condition.Reason, condition.Reason, condition.Message)
	}
	return true
}
