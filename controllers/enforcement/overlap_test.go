package enforcement

import (
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// expectNeighbour waits for a condition of an AppIsolation.
func (c *cluster) expectNeighbour(app, name string, status metav1.ConditionStatus, reason, message string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		condition := meta.FindStatusCondition(c.appNamed(app).Status.Conditions, name)
		return condition != nil && condition.Status == status && condition.Reason == reason
	}, apiservertest.Eventually, apiservertest.Tick, "%s: %s %s %s", app, name, status, reason)
	require.Contains(c.t, meta.FindStatusCondition(c.appNamed(app).Status.Conditions, name).Message, message)
}

func TestNeighboursComeAndGo(t *testing.T) {
	c := newCluster(t)
	c.createApp()
	c.expectNeighbour("db", "Exclusive", "True", "OnlyPolicy", "no other policy")
	c.expectNeighbour("db", "Overlapping", "False", "NoOverlap", "no other AppIsolation")

	wide := judgetest.Policy(t, "wide", "{policyTypes: [Ingress], ingress: [{}]}")
	wide.Namespace = c.namespace
	require.NoError(t, c.admin.Create(t.Context(), &wide))
	// Selectors that could meet aren't enough: pods count.
	pod := c.pod("a", c.node("one"))
	c.expectNeighbour("db", "Exclusive", "False", "WidenedByOtherPolicies", "allow more: wide")
	wide.Spec.Ingress = nil
	require.NoError(t, c.admin.Update(t.Context(), &wide))
	c.expectNeighbour("db", "Exclusive", "True", "OnlyPolicy", "")
	wide.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
	require.NoError(t, c.admin.Update(t.Context(), &wide))
	c.expectNeighbour("db", "Exclusive", "False", "WidenedByOtherPolicies", "")
	require.NoError(t, c.admin.Delete(t.Context(), &wide))
	c.expectNeighbour("db", "Exclusive", "True", "OnlyPolicy", "")

	other := c.newApp("namespace")
	other.Spec.Selector = &v1alpha1.LabelSelector{}
	require.NoError(t, c.admin.Create(t.Context(), other))
	c.expectNeighbour("db", "Overlapping", "True", "OtherAppIsolations", ": namespace")
	c.expectNeighbour("namespace", "Overlapping", "True", "OtherAppIsolations", ": db")
	c.expectNeighbour("db", "Exclusive", "True", "OnlyPolicy", "")
	pod.Labels = map[string]string{"role": "web"}
	require.NoError(t, c.admin.Update(t.Context(), pod))
	c.expectNeighbour("db", "Overlapping", "False", "NoOverlap", "")
	c.expectNeighbour("namespace", "Overlapping", "False", "NoOverlap", "")

	disabled := c.app()
	disabled.Spec.Mode = v1alpha1.ModeDisabled
	require.NoError(t, c.admin.Update(t.Context(), disabled))
	c.expectNeighbour("db", "Exclusive", "Unknown", "NotProgrammed", "")
	c.expectNeighbour("db", "Overlapping", "Unknown", "NotProgrammed", "")
}
