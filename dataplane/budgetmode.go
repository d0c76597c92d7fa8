package dataplane

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/policy"
)

// +kubebuilder:rbac:groups="",namespace=moat-system,resources=configmaps,resourceNames=moat-budgets,verbs=get

const (
	// budgetMarker is a ConfigMap that every release with budgets has. One that is
	// younger than the release came with an upgrade.
	budgetMarker = "moat-budgets"

	// installTakes is how long an install takes to make all of its objects, at most.
	installTakes = time.Minute

	// askBudgetsFor bounds the wait for the API server's answers before the first sync.
	askBudgetsFor = 10 * time.Second
)

// settleBudgets asks the API server for what the budgets depend on: whether this is an
// upgrade from a release without them, where nothing else says what to do, and which
// policies were in force on the node before this agent.
func (a *Agent) settleBudgets(ctx context.Context) {
	budgets := a.enforcer.budgets
	ctx, cancel := context.WithTimeout(ctx, askBudgetsFor)
	defer cancel()
	budgets.mode = a.options.BudgetMode
	if budgets.mode == "" {
		var err error
		if budgets.mode, err = askMode(ctx, a.live, a.options.Namespace); err != nil {
			budgets.mode = BudgetReport // it closes less, and the ceilings hold
			a.log.Error(err, "It isn't known whether budgets are enforced; until the agent starts again they are reported")
		}
	}
	standing, err := askStanding(ctx, a.live, a.options.NodeName)
	if err != nil {
		a.log.Error(err, "It isn't known which policies were in force before; those that match more pods than a budget allows are closed")
	}
	budgets.ledger.Standing = func(p *policy.Policy) bool { return standing[idOf(p)] }
	a.log.Info("Budgets of policies", "mode", budgets.mode, "policy", budgets.limits.Policy.String(),
		"namespace", budgets.limits.Namespace.String(), "node", budgets.limits.Node.String())
}

// askMode compares the ages of the release's objects. An agent without a namespace
// belongs to no release.
func askMode(ctx context.Context, live client.Reader, namespace string) (BudgetMode, error) {
	if namespace == "" {
		return BudgetEnforce, nil
	}
	var ages []time.Time
	for name, object := range map[string]client.Object{
		v1alpha1.ReleaseMarker: &corev1.ConfigMap{},
		agentsName:             &appsv1.DaemonSet{},
	} {
		made, err := madeAt(ctx, live, namespace, name, object)
		if err != nil {
			return "", err
		}
		ages = append(ages, made)
	}
	marker, err := madeAt(ctx, live, namespace, budgetMarker, &corev1.ConfigMap{})
	return modeOf(marker, ages...), err
}

// agentsName is the DaemonSet of the agents.
const agentsName = "moat-agent"

// madeAt returns when an object was made; zero where there is none.
func madeAt(ctx context.Context, live client.Reader, namespace, name string, object client.Object) (time.Time, error) {
	err := live.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, object)
	if client.IgnoreNotFound(err) != nil {
		return time.Time{}, fmt.Errorf("reading %s/%s: %w", namespace, name, err)
	}
	return object.GetCreationTimestamp().Time, nil
}

// modeOf says what an agent does where its release doesn't say: it enforces budgets where
// they came with the install. Objects that are missing have the time zero.
func modeOf(marker time.Time, release ...time.Time) BudgetMode {
	if marker.IsZero() {
		return BudgetReport
	}
	for _, made := range release {
		if !made.IsZero() && marker.Sub(made) > installTakes {
			return BudgetReport
		}
	}
	return BudgetEnforce
}

// askStanding returns the policies that the node's last report calls enforced.
func askStanding(ctx context.Context, live client.Reader, node string) (map[policyID]bool, error) {
	report := &v1alpha1.NodeEnforcement{}
	if err := live.Get(ctx, client.ObjectKey{Name: node}, report); err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("reading NodeEnforcement %s: %w", node, err)
	}
	standing := map[policyID]bool{}
	for _, p := range report.Status.Policies {
		standing[policyID{p.UID, p.Generation}] = true
	}
	return standing, nil
}

// limitsOr returns the limits, or the defaults for the zero value.
func limitsOr(limits budget.Limits) budget.Limits {
	if limits == (budget.Limits{}) {
		return budget.Defaults()
	}
	return limits
}
