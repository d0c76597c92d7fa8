package policyproof

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/enforcementtest"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

func TestHandWrittenPolicy(t *testing.T) {
	c := newCluster(t)
	policy := c.HandWritten("by-hand")
	stored := c.ExpectPolicy(policy, "True", "NoSelectedPods", "0/0")
	require.Equal(t, []metav1.OwnerReference{{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Name: policy.Name, UID: policy.UID}}, stored.OwnerReferences)

	one, two := c.NodeName("one"), c.NodeName("two")
	for _, node := range []string{one, two} {
		c.Agent(node)
		c.Report(node)
		c.Pod("on-"+node, node)
	}
	stored = c.ExpectPolicy(policy, "False", "Progressing", "0/2")
	require.EqualValues(t, 2, stored.Status.SelectedPods)
	c.Holds(one, enforcementtest.ReferenceTo(policy))
	c.ExpectPolicy(policy, "False", "Progressing", "1/2")
	c.Holds(two, enforcementtest.ReferenceTo(policy))
	c.ExpectPolicy(policy, "True", "AllNodesEnforced", "2/2")

	policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
	require.NoError(t, c.Admin.Update(t.Context(), policy))
	c.ExpectPolicy(policy, "False", "Progressing", "0/2")
	c.Report(one, judgetest.Failing(string(policy.UID), "RestoreFailed", "line 7"))
	c.Holds(two, enforcementtest.ReferenceTo(policy))
	stored = c.ExpectPolicy(policy, "False", "NodeFailed", "1/2")
	require.Equal(t, []v1alpha1.NodeFailure{{NodeName: one, Reason: "RestoreFailed", Message: "line 7"}}, stored.Status.Failures)
}

// TestPolicyEnforcementIsKept: it comes back after it was deleted, and never speaks of an
// earlier policy of the same name.
func TestPolicyEnforcementIsKept(t *testing.T) {
	c := newCluster(t)
	policy := c.HandWritten("by-hand")
	first := c.ExpectPolicy(policy, "True", "NoSelectedPods", "0/0")
	require.NoError(t, c.Admin.Delete(t.Context(), first))
	second := c.ExpectPolicy(policy, "True", "NoSelectedPods", "0/0")
	require.NotEqual(t, first.UID, second.UID)

	require.NoError(t, c.Admin.Delete(t.Context(), policy))
	again := c.HandWritten("by-hand")
	third := c.ExpectPolicy(again, "True", "NoSelectedPods", "0/0")
	require.Equal(t, again.UID, third.OwnerReferences[0].UID)
}

// TestPolicyEnforcementSettles: no write answers itself.
func TestPolicyEnforcementSettles(t *testing.T) {
	c := newCluster(t)
	policy := c.HandWritten("by-hand")
	c.ExpectPolicy(policy, "True", "NoSelectedPods", "0/0")
	time.Sleep(apiservertest.Never)
	before := c.EnforcementOf("by-hand")
	policy.Annotations = map[string]string{"touched": "yes"}
	require.NoError(t, c.Admin.Update(t.Context(), policy))
	time.Sleep(apiservertest.Never)
	require.Equal(t, before.ResourceVersion, c.EnforcementOf("by-hand").ResourceVersion)
}

// TestPolicyOfANamespaceThatIsBeingDeleted: nothing can be stored for it any more,
// and the operator stops trying.
func TestPolicyOfANamespaceThatIsBeingDeleted(t *testing.T) {
	c := newCluster(t)
	policy := c.HandWritten("by-hand")
	stored := c.ExpectPolicy(policy, "True", "NoSelectedPods", "0/0")
	require.NoError(t, c.Admin.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.Namespace}}))
	before := failedReconciliations(t)
	require.NoError(t, c.Admin.Delete(t.Context(), stored))
	require.Eventually(t, func() bool { return c.EnforcementOf("by-hand") == nil }, apiservertest.Eventually, apiservertest.Tick, "it goes")
	time.Sleep(apiservertest.Never)
	require.Nil(t, c.EnforcementOf("by-hand"))
	require.Equal(t, before, failedReconciliations(t))
}

// failedReconciliations is of all controllers that ever ran in this process.
func failedReconciliations(t *testing.T) float64 {
	t.Helper()
	families, err := ctrlmetrics.Registry.Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, family := range families {
		if family.GetName() == "controller_runtime_reconcile_errors_total" {
			for _, metric := range family.GetMetric() {
				sum += metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}
