package enforcement

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// handWritten stores a policy that closes role=db.
func (c *cluster) handWritten(name string) *networkingv1.NetworkPolicy {
	c.t.Helper()
	policy := judgetest.Policy(c.t, name, "{policyTypes: [Ingress]}")
	policy.Namespace = c.namespace
	require.NoError(c.t, c.admin.Create(c.t.Context(), &policy))
	return &policy
}

func referenceTo(policy *networkingv1.NetworkPolicy) v1alpha1.PolicyReference {
	return v1alpha1.PolicyReference{Name: policy.Name, UID: policy.UID, Generation: policy.Generation}
}

// enforcementOf returns nil where there is no PolicyEnforcement.
func (c *cluster) enforcementOf(name string) *v1alpha1.PolicyEnforcement {
	c.t.Helper()
	stored := &v1alpha1.PolicyEnforcement{}
	err := c.admin.Get(c.t.Context(), client.ObjectKey{Namespace: c.namespace, Name: name}, stored)
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(c.t, err)
	return stored
}

// expectPolicy waits for what a PolicyEnforcement says of the present policy.
func (c *cluster) expectPolicy(policy *networkingv1.NetworkPolicy, status metav1.ConditionStatus, reason, summary string) *v1alpha1.PolicyEnforcement {
	c.t.Helper()
	var stored *v1alpha1.PolicyEnforcement
	require.Eventually(c.t, func() bool {
		stored = c.enforcementOf(policy.Name)
		if stored == nil || stored.Status.PolicyUID != policy.UID {
			return false
		}
		condition := meta.FindStatusCondition(stored.Status.Conditions, v1alpha1.ConditionEnforced)
		return condition != nil && condition.Status == status && condition.Reason == reason &&
			condition.ObservedGeneration == policy.Generation && stored.Status.ObservedGeneration == policy.Generation &&
			stored.Status.Enforcement.Summary == summary
	}, apiservertest.Eventually, apiservertest.Tick, "%s %s %s", status, reason, summary)
	return stored
}

func TestHandWrittenPolicy(t *testing.T) {
	c := newCluster(t)
	policy := c.handWritten("by-hand")
	stored := c.expectPolicy(policy, "True", "NoSelectedPods", "0/0")
	require.Equal(t, []metav1.OwnerReference{{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Name: policy.Name, UID: policy.UID}}, stored.OwnerReferences)

	one, two := c.node("one"), c.node("two")
	for _, node := range []string{one, two} {
		c.agent(node)
		c.report(node)
		c.pod("on-"+node, node)
	}
	stored = c.expectPolicy(policy, "False", "Progressing", "0/2")
	require.EqualValues(t, 2, stored.Status.SelectedPods)
	c.holds(one, referenceTo(policy))
	c.expectPolicy(policy, "False", "Progressing", "1/2")
	c.holds(two, referenceTo(policy))
	c.expectPolicy(policy, "True", "AllNodesEnforced", "2/2")

	policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
	require.NoError(t, c.admin.Update(t.Context(), policy))
	c.expectPolicy(policy, "False", "Progressing", "0/2")
	c.report(one, judgetest.Failing(string(policy.UID), "RestoreFailed", "line 7"))
	c.holds(two, referenceTo(policy))
	stored = c.expectPolicy(policy, "False", "NodeFailed", "1/2")
	require.Equal(t, []v1alpha1.NodeFailure{{NodeName: one, Reason: "RestoreFailed", Message: "line 7"}}, stored.Status.Failures)
}

// TestPolicyEnforcementIsKept: nobody's hand keeps it away, and it never speaks of
// an earlier policy of the same name.
func TestPolicyEnforcementIsKept(t *testing.T) {
	c := newCluster(t)
	policy := c.handWritten("by-hand")
	first := c.expectPolicy(policy, "True", "NoSelectedPods", "0/0")
	require.NoError(t, c.admin.Delete(t.Context(), first))
	second := c.expectPolicy(policy, "True", "NoSelectedPods", "0/0")
	require.NotEqual(t, first.UID, second.UID)

	require.NoError(t, c.admin.Delete(t.Context(), policy))
	again := c.handWritten("by-hand")
	third := c.expectPolicy(again, "True", "NoSelectedPods", "0/0")
	require.Equal(t, again.UID, third.OwnerReferences[0].UID)
}

// TestPolicyEnforcementSettles: no write answers itself.
func TestPolicyEnforcementSettles(t *testing.T) {
	c := newCluster(t)
	policy := c.handWritten("by-hand")
	c.expectPolicy(policy, "True", "NoSelectedPods", "0/0")
	time.Sleep(apiservertest.Never)
	before := c.enforcementOf("by-hand")
	policy.Annotations = map[string]string{"touched": "yes"}
	require.NoError(t, c.admin.Update(t.Context(), policy))
	time.Sleep(apiservertest.Never)
	require.Equal(t, before.ResourceVersion, c.enforcementOf("by-hand").ResourceVersion)
}

func TestGeneratedPolicyHasNoPolicyEnforcement(t *testing.T) {
	c := newCluster(t)
	c.createApp()
	c.expect("Ready", "True", "NoSelectedPods", "0/0")
	time.Sleep(apiservertest.Never)
	require.Nil(t, c.enforcementOf(c.programmed().Name))
}

func TestReportingOfGeneratedPoliciesAlone(t *testing.T) {
	stale := &v1alpha1.PolicyEnforcement{ObjectMeta: metav1.ObjectMeta{Namespace: server.Namespace(t), Name: "stale"}}
	admin := server.Admin(t)
	require.NoError(t, admin.Create(t.Context(), stale))
	c := newReportingCluster(t, ReportGenerated, stale.Namespace)
	c.createApp()
	c.handWritten("by-hand")
	c.expect("Ready", "True", "NoSelectedPods", "0/0")
	require.Eventually(t, func() bool {
		return apierrors.IsNotFound(admin.Get(t.Context(), client.ObjectKeyFromObject(stale), stale))
	}, apiservertest.Eventually, apiservertest.Tick, "what would go out of date is gone")
	time.Sleep(apiservertest.Never)
	require.Nil(t, c.enforcementOf("by-hand"))
}

func TestReportingOff(t *testing.T) {
	c := newReportingCluster(t, ReportNone)
	node := c.node("one")
	c.agent(node)
	c.pod("a", node)
	c.createApp()
	app := c.expect("Ready", "Unknown", "ReportingOff", "")
	require.EqualValues(t, 1, app.Status.SelectedPods)
	condition := meta.FindStatusCondition(app.Status.Conditions, "Programmed")
	require.Equal(t, metav1.ConditionTrue, condition.Status)
	c.holds(node, c.programmed())
	time.Sleep(apiservertest.Never)
	c.expect("Enforced", "Unknown", "ReportingOff", "")
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
