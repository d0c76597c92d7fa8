package appstatus

import (
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/enforcementtest"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// expectNeighbour waits for a condition of an AppIsolation.
func expectNeighbour(c *enforcementtest.Cluster, app, name string, status metav1.ConditionStatus, reason, message string) {
	c.T.Helper()
	require.Eventually(c.T, func() bool {
		condition := meta.FindStatusCondition(c.AppNamed(app).Status.Conditions, name)
		return condition != nil && condition.Status == status && condition.Reason == reason
	}, apiservertest.Eventually, apiservertest.Tick, "%s: %s %s %s", app, name, status, reason)
	require.Contains(c.T, meta.FindStatusCondition(c.AppNamed(app).Status.Conditions, name).Message, message)
}

func TestNeighboursComeAndGo(t *testing.T) {
	c := newCluster(t)
	c.CreateApp()
	expectNeighbour(c, "db", "Exclusive", "True", "OnlyPolicy", "no other policy")
	expectNeighbour(c, "db", "Overlapping", "False", "NoOverlap", "no other AppIsolation")

	wide := judgetest.Policy(t, "wide", "{policyTypes: [Ingress], ingress: [{}]}")
	wide.Namespace = c.Namespace
	require.NoError(t, c.Admin.Create(t.Context(), &wide))
	// Selectors that could meet aren't enough: pods count.
	pod := c.Pod("a", c.NodeName("one"))
	expectNeighbour(c, "db", "Exclusive", "False", "WidenedByOtherPolicies", "allow more: wide")
	wide.Spec.Ingress = nil
	require.NoError(t, c.Admin.Update(t.Context(), &wide))
	expectNeighbour(c, "db", "Exclusive", "True", "OnlyPolicy", "")
	wide.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
	require.NoError(t, c.Admin.Update(t.Context(), &wide))
	expectNeighbour(c, "db", "Exclusive", "False", "WidenedByOtherPolicies", "")
	require.NoError(t, c.Admin.Delete(t.Context(), &wide))
	expectNeighbour(c, "db", "Exclusive", "True", "OnlyPolicy", "")

	other := c.NewApp("namespace")
	other.Spec.Selector = &v1alpha1.LabelSelector{}
	require.NoError(t, c.Admin.Create(t.Context(), other))
	expectNeighbour(c, "db", "Overlapping", "True", "OtherAppIsolations", ": namespace")
	expectNeighbour(c, "namespace", "Overlapping", "True", "OtherAppIsolations", ": db")
	expectNeighbour(c, "db", "Exclusive", "True", "OnlyPolicy", "")
	pod.Labels = map[string]string{"role": "web"}
	require.NoError(t, c.Admin.Update(t.Context(), pod))
	expectNeighbour(c, "db", "Overlapping", "False", "NoOverlap", "")
	expectNeighbour(c, "namespace", "Overlapping", "False", "NoOverlap", "")

	disabled := c.App()
	disabled.Spec.Mode = v1alpha1.ModeDisabled
	require.NoError(t, c.Admin.Update(t.Context(), disabled))
	expectNeighbour(c, "db", "Exclusive", "Unknown", "NotProgrammed", "")
	expectNeighbour(c, "db", "Overlapping", "Unknown", "NotProgrammed", "")
}
