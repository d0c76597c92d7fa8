package dataplane

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/budget/budgettest"
	"github.com/moat-dev/moat/dataplane/policy"
)

// release is what an agent reads of the API server before it begins: when objects were
// made, by name, and the node's report.
type release struct {
	made   map[string]time.Time
	report v1alpha1.NodeEnforcementStatus
	broken error
}

func (r *release) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	if r.broken != nil {
		return r.broken
	}
	if report, ok := object.(*v1alpha1.NodeEnforcement); ok {
		report.Status = r.report
		return nil
	}
	kind := "ConfigMap"
	if _, ok := object.(*appsv1.DaemonSet); ok {
		kind = "DaemonSet"
	} else if _, ok := object.(*corev1.ConfigMap); !ok {
		return errors.New("an agent has no right to read this")
	}
	made, there := r.made[kind+"/"+key.Namespace+"/"+key.Name]
	if !there {
		return apierrors.NewNotFound(schema.GroupResource{}, key.Name)
	}
	object.SetCreationTimestamp(metav1.NewTime(made))
	return nil
}

func (r *release) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("nothing is listed")
}

const (
	marker      = "ConfigMap/moat-system/moat-release"
	agents      = "DaemonSet/moat-system/moat-agent"
	budgetsMade = "ConfigMap/moat-system/moat-budgets"
)

// An upgrade to budgets closes no pod, however it comes to the cluster.
func TestBudgetsAreOnlyReportedAfterAnUpgrade(t *testing.T) {
	now := time.Now()
	before, soon := now.Add(-time.Hour), now.Add(20*time.Second)
	for name, test := range map[string]struct {
		made   map[string]time.Time
		broken error
		asked  BudgetMode
		want   BudgetMode
	}{
		"installed":                             {made: map[string]time.Time{marker: now, agents: now, budgetsMade: soon}, want: BudgetEnforce},
		"the DaemonSet was made again":          {made: map[string]time.Time{marker: now, agents: now.Add(time.Hour), budgetsMade: now}, want: BudgetEnforce},
		"upgraded":                              {made: map[string]time.Time{marker: before, agents: before, budgetsMade: now}, want: BudgetReport},
		"upgraded, with a new DaemonSet":        {made: map[string]time.Time{marker: before, agents: now, budgetsMade: now}, want: BudgetReport},
		"upgraded from a version before marker": {made: map[string]time.Time{marker: now, agents: before, budgetsMade: now}, want: BudgetReport},
		"upgraded without the new object":       {made: map[string]time.Time{marker: before, agents: before}, want: BudgetReport},
		"not known":                             {broken: errors.New("no answer"), want: BudgetReport},
		"an admin says so":                      {made: map[string]time.Time{marker: before, agents: before, budgetsMade: now}, asked: BudgetEnforce, want: BudgetEnforce},
		"an admin says otherwise":               {made: map[string]time.Time{marker: now, agents: now, budgetsMade: now}, asked: BudgetReport, want: BudgetReport},
	} {
		t.Run(name, func(t *testing.T) {
			a := agentOfRelease(&release{made: test.made, broken: test.broken}, Options{NodeName: "node-1", Namespace: "moat-system", BudgetMode: test.asked})
			a.settleBudgets(t.Context())
			require.Equal(t, test.want, a.enforcer.budgets.mode)
		})
	}
}

func agentOfRelease(r *release, options Options) *Agent {
	a := &Agent{options: options, log: logr.Discard(), enforcer: newEnforcer(""), live: r}
	a.enforcer.budgets = newBudgets(limitsOr(options.Budgets), options.BudgetMode)
	return a
}

// A policy that is over budget is enforced and named where budgets are reported. One
// that is over a ceiling, which may kill the agent, is closed all the same.
func TestReportModeClosesNothingBelowTheCeilings(t *testing.T) {
	m := newHostileModel()
	m.SetPolicy(policy.ParseNetworkPolicy(budgettest.Named("hostile", "dear", 1, budgettest.Peers(400, 15*20))))
	m.SetPolicy(policy.ParseNetworkPolicy(budgettest.Named("hostile", "deadly", 2, budgettest.Exceptions(10_000))))
	e := newEnforcer("")
	e.budgets.mode = BudgetReport
	require.True(t, e.look(m))
	require.Equal(t, []string{"hostile/deadly"}, e.budgets.closed)
	require.Equal(t, []string{"hostile/dear"}, e.budgets.over)

	m.DeletePolicy(types.NamespacedName{Namespace: "hostile", Name: "deadly"})
	require.True(t, e.look(m))
	require.Empty(t, e.view.expensive)
	condition := e.budgets.condition()
	require.Equal(t, metav1.ConditionFalse, condition.Status)
	require.Contains(t, condition.Message, "agent.budgets.mode is Report: hostile/dear")
}

// Pods that come close no policy, and neither does a new agent that counts them.
func TestGrowthWarnsAndClosesNothing(t *testing.T) {
	m := newHostileModel()
	m.SetPolicy(policy.ParseNetworkPolicy(budgettest.Named("hostile", "grows", 1, budgettest.Everything(3))))
	limits := budget.Defaults()
	limits.Policy[budget.Elements], limits.Node[budget.Elements] = 8_000, 20_000
	report := v1alpha1.NodeEnforcementStatus{Policies: []v1alpha1.EnforcedPolicy{{UID: "hostile/grows", Generation: 1}}}
	look := func(stored v1alpha1.NodeEnforcementStatus) *enforcer {
		a := agentOfRelease(&release{report: stored}, Options{NodeName: "node-1", Budgets: limits})
		a.settleBudgets(t.Context())
		require.True(t, a.enforcer.look(m))
		return a.enforcer
	}
	e := look(v1alpha1.NodeEnforcementStatus{})
	require.Empty(t, e.budgets.closed)
	for number := range 1200 {
		m.SetPod(policy.ParsePod(budgettest.Pod("hostile", 5000+number, nil)))
	}
	m.Renew()
	require.True(t, e.look(m))
	require.Empty(t, e.budgets.closed, "the policy was within its budget when it came")
	require.Empty(t, look(report).budgets.closed, "it is in force")
	require.Equal(t, []string{"hostile/grows"}, look(v1alpha1.NodeEnforcementStatus{}).budgets.closed, "it is new to the node")

	e.budgets.elements = 15_999
	require.Equal(t, v1alpha1.NodeReasonAffordable, e.budgets.condition().Reason)
	e.budgets.elements = 16_000
	require.Equal(t, v1alpha1.NodeReasonBudgetNearlyUsed, e.budgets.condition().Reason)
	require.Equal(t, metav1.ConditionTrue, e.budgets.condition().Status)
}
