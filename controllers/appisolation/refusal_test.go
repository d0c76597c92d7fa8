package appisolation

import (
	"testing"

	"github.com/stretchr/testify/require"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
	"github.com/moat-dev/moat/controllers/appisolation/isolation/isolationtest"
)

const refusal = "egress to 10.0.0.0/24 is not for you"

// refuse makes the API server refuse the fixture's policy until it is called
// again, which an administrator can do to any cluster.
func (f *fixture) refuse(reason metav1.StatusReason) (allow func()) {
	f.t.Helper()
	ctx, name := f.t.Context(), "refuse-"+f.key.Namespace
	policy := &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
				RuleWithOperations: admissionv1.RuleWithOperations{
					Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
					Rule:       admissionv1.Rule{APIGroups: []string{"networking.k8s.io"}, APIVersions: []string{"v1"}, Resources: []string{"networkpolicies"}},
				},
			}}},
			Validations: []admissionv1.Validation{{
				Expression: "object.metadata.namespace != '" + f.key.Namespace + "'", Message: refusal, Reason: &reason,
			}},
		},
	}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}
	require.NoError(f.t, f.admin.Create(ctx, policy))
	require.NoError(f.t, f.admin.Create(ctx, binding))
	f.eventually(func() bool { return f.probe() != nil }, "the API server refuses policies")
	return func() {
		require.NoError(f.t, f.admin.Delete(ctx, binding))
		require.NoError(f.t, f.admin.Delete(ctx, policy))
		f.eventually(func() bool { return f.probe() == nil }, "the API server takes policies")
	}
}

// probe asks whether the API server would take a policy in the namespace.
func (f *fixture) probe() error {
	probe := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: f.key.Namespace, Name: "probe"}}
	return f.admin.Create(f.t.Context(), probe, client.DryRunAll)
}

func TestInvalidPolicy(t *testing.T) {
	f := newFixture(t)
	f.refuse(metav1.StatusReasonInvalid)
	f.createApp()
	accepted := f.condition(v1alpha1.ConditionAccepted, metav1.ConditionFalse, v1alpha1.ReasonInvalid)
	require.Contains(t, accepted.Message, refusal)
	f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonInvalid)
	require.Nil(t, f.app().Status.Policy)
}

func TestFailedApplyIsRetried(t *testing.T) {
	f := newFixture(t)
	allow := f.refuse(metav1.StatusReasonForbidden)
	f.createApp()
	programmed := f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonApplyFailed)
	require.Contains(t, programmed.Message, refusal)
	f.condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	allow()
	f.programmed()
}

// TestRefusedEditNamesTheOldPolicy: the policy that is stored stays in force,
// and the status doesn't claim the new generation.
func TestRefusedEditNamesTheOldPolicy(t *testing.T) {
	f := newFixture(t)
	f.createApp()
	before := f.programmed()
	f.refuse(metav1.StatusReasonInvalid)
	f.edit(func(app *v1alpha1.AppIsolation) { app.Spec.Egress = nil })
	f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonInvalid)
	require.EqualValues(t, 1, f.app().Status.Policy.Generation)
	require.Equal(t, before.ResourceVersion, f.policy().ResourceVersion)
}

// TestWritesRefuseWhatChanged holds the races that a cache can lose: in each, the
// stored object is no longer the one that was read.
func TestWritesRefuseWhatChanged(t *testing.T) {
	admin, namespace := server.Admin(t), server.Namespace(t)
	app := isolationtest.App(t, "isolation/testdata/walk-through.in.yaml")
	app.Namespace, app.UID = namespace, "app"
	desired, _ := isolation.Policy(app, isolation.World{})
	require.NoError(t, create(t.Context(), admin, desired.DeepCopy()))

	err := create(t.Context(), admin, desired.DeepCopy())
	require.True(t, apierrors.IsAlreadyExists(err), "a policy that appeared since the read is not adopted: %v", err)

	read := &networkingv1.NetworkPolicy{}
	require.NoError(t, admin.Get(t.Context(), client.ObjectKeyFromObject(desired), read))
	given := read.DeepCopy()
	given.OwnerReferences = nil
	require.NoError(t, admin.Update(t.Context(), given))
	require.True(t, isStale(repair(t.Context(), admin, read, desired.DeepCopy())), "a policy that was given away is not taken back")
	require.True(t, isStale(remove(t.Context(), admin, read)), "nor deleted")

	require.NoError(t, admin.Delete(t.Context(), given))
	require.True(t, isStale(repair(t.Context(), admin, read, desired.DeepCopy())), "a deleted policy is not recreated without a read")
	require.NoError(t, create(t.Context(), admin, desired.DeepCopy()))
	require.True(t, isStale(remove(t.Context(), admin, read)), "the next policy of the name is another one")
}
