package enforcement

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

func TestGeneratedPolicyHasNoPolicyEnforcement(t *testing.T) {
	c := newCluster(t)
	c.CreateApp()
	c.Expect("Ready", "True", "NoSelectedPods", "0/0")
	time.Sleep(apiservertest.Never)
	require.Nil(t, c.EnforcementOf(c.Programmed().Name))
}

func TestReportingOfGeneratedPoliciesAlone(t *testing.T) {
	stale := &v1alpha1.PolicyEnforcement{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace(t), Name: "stale"}}
	admin := server.Admin(t)
	require.NoError(t, admin.Create(t.Context(), stale))
	c := newReportingCluster(t, ReportGenerated, stale.Namespace)
	c.CreateApp()
	c.HandWritten("by-hand")
	c.Expect("Ready", "True", "NoSelectedPods", "0/0")
	require.Eventually(t, func() bool {
		return apierrors.IsNotFound(admin.Get(t.Context(), client.ObjectKeyFromObject(stale), stale))
	}, apiservertest.Eventually, apiservertest.Tick, "what would go out of date is gone")
	time.Sleep(apiservertest.Never)
	require.Nil(t, c.EnforcementOf("by-hand"))
}

func TestReportingOff(t *testing.T) {
	c := newReportingCluster(t, ReportNone)
	node := c.NodeName("one")
	c.Agent(node)
	c.Pod("a", node)
	c.CreateApp()
	app := c.Expect("Ready", "Unknown", "ReportingOff", "")
	require.EqualValues(t, 1, app.Status.SelectedPods)
	condition := meta.FindStatusCondition(app.Status.Conditions, "Programmed")
	require.Equal(t, metav1.ConditionTrue, condition.Status)
	c.Holds(node, c.Programmed())
	time.Sleep(apiservertest.Never)
	c.Expect("Enforced", "Unknown", "ReportingOff", "")
}

func TestParseReporting(t *testing.T) {
	for _, text := range []string{"All", "Generated", "None"} {
		reporting, err := ParseReporting(text)
		require.NoError(t, err)
		require.EqualValues(t, text, reporting)
	}
	for _, text := range []string{"", "all", "Some"} {
		_, err := ParseReporting(text)
		require.ErrorContains(t, err, "use All, Generated or None", text)
	}
}
