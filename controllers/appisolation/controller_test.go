package appisolation

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
	"github.com/moat-dev/moat/controllers/appisolation/isolation/isolationtest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// fixture is one AppIsolation in a namespace of its own.
type fixture struct {
	t     *testing.T
	admin client.Client
	key   client.ObjectKey
}

// newFixture starts the controller but stores nothing yet.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	namespace := server.Namespace(t)
	startController(t, namespace)
	return &fixture{t: t, admin: server.Admin(t), key: client.ObjectKey{Namespace: namespace, Name: "db"}}
}

func (f *fixture) createApp() *v1alpha1.AppIsolation {
	f.t.Helper()
	app := isolationtest.App(f.t, "isolation/testdata/walk-through.in.yaml")
	app.Namespace, app.Name = f.key.Namespace, f.key.Name
	require.NoError(f.t, f.admin.Create(f.t.Context(), app))
	return app
}

func (f *fixture) app() *v1alpha1.AppIsolation {
	f.t.Helper()
	app := &v1alpha1.AppIsolation{}
	require.NoError(f.t, f.admin.Get(f.t.Context(), f.key, app))
	return app
}

// policy returns nil where there is none.
func (f *fixture) policy() *networkingv1.NetworkPolicy {
	f.t.Helper()
	policy := &networkingv1.NetworkPolicy{}
	err := f.admin.Get(f.t.Context(), client.ObjectKey{Namespace: f.key.Namespace, Name: "appiso-" + f.key.Name}, policy)
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(f.t, err)
	return policy
}

func (f *fixture) edit(change func(*v1alpha1.AppIsolation)) {
	f.t.Helper()
	f.eventually(func() bool {
		app := f.app()
		change(app)
		err := f.admin.Update(f.t.Context(), app)
		require.True(f.t, err == nil || apierrors.IsConflict(err), "editing: %v", err)
		return err == nil
	}, "edit accepted")
}

func (f *fixture) eventually(condition func() bool, what string) {
	f.t.Helper()
	require.Eventually(f.t, condition, apiservertest.Eventually, apiservertest.Tick, what)
}

// condition waits for a condition of the present generation.
func (f *fixture) condition(name string, status metav1.ConditionStatus, reason string) metav1.Condition {
	f.t.Helper()
	var found metav1.Condition
	f.eventually(func() bool {
		app := f.app()
		condition := meta.FindStatusCondition(app.Status.Conditions, name)
		if condition == nil || condition.ObservedGeneration != app.Generation || app.Status.ObservedGeneration != app.Generation {
			return false
		}
		found = *condition
		return condition.Status == status && condition.Reason == reason
	}, fmt.Sprintf("%s %s %s", name, status, reason))
	return found
}

// compiled is for an AppIsolation that refers to nothing.
func compiled(app *v1alpha1.AppIsolation) networkingv1.NetworkPolicySpec {
	policy, _, _ := isolation.Compile(app, isolation.World{})
	return policy
}

func (f *fixture) programmed() *networkingv1.NetworkPolicy {
	f.t.Helper()
	f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	policy := f.policy()
	require.NotNil(f.t, policy)
	return policy
}

func TestCreateAndEdit(t *testing.T) {
	f := newFixture(t)
	app := f.createApp()
	policy := f.programmed()
	f.condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)

	require.Equal(t, compiled(app), policy.Spec)
	require.Equal(t, "moat", policy.Labels["app.kubernetes.io/managed-by"])
	require.Empty(t, policy.Finalizers)
	require.Empty(t, f.app().Finalizers)
	require.Equal(t, []metav1.OwnerReference{{
		APIVersion: "isolation.moat.dev/v1alpha1", Kind: "AppIsolation", Name: app.Name, UID: app.UID, Controller: new(true),
	}}, policy.OwnerReferences, "garbage collection goes by this")
	require.Equal(t, &v1alpha1.PolicyReference{Name: policy.Name, UID: policy.UID, Generation: 1}, f.app().Status.Policy)
	for _, entry := range policy.ManagedFields {
		require.Equal(t, "moat", entry.Manager)
	}

	f.edit(func(app *v1alpha1.AppIsolation) {
		app.Spec.Directions = []v1alpha1.Direction{v1alpha1.DirectionIngress}
		app.Spec.Egress = nil
		app.Spec.Ingress[1].Ports[0].Port = new(intstr.FromInt32(8080))
	})
	edited := f.programmed()
	require.Equal(t, policy.UID, edited.UID)
	require.Equal(t, compiled(f.app()), edited.Spec)
	require.Equal(t, &v1alpha1.PolicyReference{Name: policy.Name, UID: policy.UID, Generation: 2}, f.app().Status.Policy)
}

// TestEditWithoutConsequence: the order of names is not in the policy, so that the
// status has to follow the generation without any write to the policy.
func TestEditWithoutConsequence(t *testing.T) {
	f := newFixture(t)
	f.createApp()
	from := func(names ...string) func(*v1alpha1.AppIsolation) {
		return func(app *v1alpha1.AppIsolation) {
			app.Spec.Ingress[0].From = []v1alpha1.Peer{{App: &v1alpha1.AppPeer{Namespaces: &v1alpha1.NamespacePeer{Names: names}}}}
		}
	}
	f.edit(from("a", "b"))
	before := f.programmed()
	f.edit(from("b", "a"))
	require.Equal(t, before.ResourceVersion, f.programmed().ResourceVersion)
	require.EqualValues(t, 3, f.app().Status.ObservedGeneration)
}

// TestARenamedRuleChangesTheProvenance, which is metadata: what is enforced stays, and its
// generation.
func TestARenamedRuleChangesTheProvenance(t *testing.T) {
	f := newFixture(t)
	f.createApp()
	before := f.programmed()
	f.edit(func(app *v1alpha1.AppIsolation) { app.Spec.Ingress[0].Name = "renamed" })
	after := f.programmed()
	require.Equal(t, before.Generation, after.Generation)
	from, err := v1alpha1.ParseProvenance(after.Annotations[v1alpha1.ProvenanceAnnotation])
	require.NoError(t, err)
	require.Len(t, from.Ingress, len(after.Spec.Ingress))
	require.Equal(t, "renamed", from.Ingress[0])
}

func TestNoWriteLoop(t *testing.T) {
	f := newFixture(t)
	f.createApp()
	policy := f.programmed()
	app := f.app()
	time.Sleep(apiservertest.Never)
	require.Equal(t, policy.ResourceVersion, f.policy().ResourceVersion)
	require.Equal(t, app.ResourceVersion, f.app().ResourceVersion)
}

func TestDriftIsRepaired(t *testing.T) {
	anyone := networkingv1.NetworkPolicyIngressRule{}
	drifts := map[string]func(*networkingv1.NetworkPolicy){
		"rule added": func(policy *networkingv1.NetworkPolicy) {
			policy.Spec.Ingress = append(policy.Spec.Ingress, anyone)
		},
		"rules removed": func(policy *networkingv1.NetworkPolicy) { policy.Spec.Ingress = nil },
		"egress rule added": func(policy *networkingv1.NetworkPolicy) {
			policy.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
		},
		"other pods":        func(policy *networkingv1.NetworkPolicy) { policy.Spec.PodSelector.MatchLabels["role"] = "nobody" },
		"selector narrowed": func(policy *networkingv1.NetworkPolicy) { policy.Spec.PodSelector.MatchLabels["and"] = "nobody" },
		"direction opened": func(policy *networkingv1.NetworkPolicy) {
			policy.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
		},
		"our label removed": func(policy *networkingv1.NetworkPolicy) { policy.Labels = nil },
		"provenance changed": func(policy *networkingv1.NetworkPolicy) {
			policy.Annotations[v1alpha1.ProvenanceAnnotation] = `{"v":1,"ingress":["other"]}`
		},
		"provenance removed": func(policy *networkingv1.NetworkPolicy) { policy.Annotations = nil },
	}
	f := newFixture(t)
	f.createApp()
	// No egress rules: what others add there is in a field that Moat has nothing in.
	f.edit(func(app *v1alpha1.AppIsolation) { app.Spec.Egress = nil })
	for name, drift := range drifts {
		t.Run(name, func(t *testing.T) {
			before := f.programmed()
			drifted := before.DeepCopy()
			drift(drifted)
			require.NoError(t, f.admin.Update(t.Context(), drifted, client.FieldOwner("somebody")))
			require.NotEqual(t, before.ResourceVersion, drifted.ResourceVersion)
			f.eventually(func() bool { return f.isAsBefore(before) }, "repaired and reported")
		})
	}
}

// isAsBefore says whether the stored policy means what before meant, and the
// status names its present generation.
func (f *fixture) isAsBefore(before *networkingv1.NetworkPolicy) bool {
	policy, reference := f.policy(), f.app().Status.Policy
	return policy != nil && reference != nil &&
		equality.Semantic.DeepEqual(before.Spec, policy.Spec) &&
		policy.Labels[isolation.ManagedByLabel] == isolation.ManagedBy &&
		policy.Annotations[v1alpha1.ProvenanceAnnotation] == before.Annotations[v1alpha1.ProvenanceAnnotation] &&
		*reference == v1alpha1.PolicyReference{Name: policy.Name, UID: policy.UID, Generation: policy.Generation}
}

func TestDeletedPolicyComesBack(t *testing.T) {
	f := newFixture(t)
	f.createApp()
	before := f.programmed()
	require.NoError(t, f.admin.Delete(t.Context(), before))
	f.eventually(func() bool { return f.isAsBefore(before) }, "recreated and reported")
	require.NotEqual(t, before.UID, f.policy().UID)
}

func TestOthersMetadataStays(t *testing.T) {
	f := newFixture(t)
	f.createApp()
	policy := f.programmed()
	policy.Labels["team"] = "blue"
	policy.Annotations = map[string]string{"note": "ours"}
	policy.Spec.PolicyTypes = nil
	require.NoError(t, f.admin.Update(t.Context(), policy, client.FieldOwner("somebody")))
	f.eventually(func() bool { return len(f.policy().Spec.PolicyTypes) == 2 }, "repaired")
	require.Equal(t, "blue", f.policy().Labels["team"])
	require.Equal(t, "ours", f.policy().Annotations["note"])
}

func TestForeignPolicyIsLeftAlone(t *testing.T) {
	for name, owners := range map[string][]metav1.OwnerReference{
		"no owner":   nil,
		"other kind": {{APIVersion: "example.com/v1", Kind: "Thing", Name: "db", UID: "1", Controller: new(true)}},
		"an earlier AppIsolation of the name": {{
			APIVersion: "isolation.moat.dev/v1alpha1", Kind: "AppIsolation", Name: "db", UID: types.UID("gone"), Controller: new(true)}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			foreign := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
				Namespace: f.key.Namespace, Name: "appiso-" + f.key.Name, OwnerReferences: owners,
				Labels: map[string]string{isolation.ManagedByLabel: isolation.ManagedBy}, // a label proves nothing
			}}
			require.NoError(t, f.admin.Create(t.Context(), foreign))
			f.createApp()
			conflict := f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonNameConflict)
			require.Contains(t, conflict.Message, foreign.Name)
			require.Nil(t, f.app().Status.Policy)

			f.edit(func(app *v1alpha1.AppIsolation) { app.Spec.Mode = v1alpha1.ModeDisabled })
			f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonDisabled)
			require.Equal(t, foreign.ResourceVersion, f.policy().ResourceVersion, "neither written nor deleted")

			f.edit(func(app *v1alpha1.AppIsolation) { app.Spec.Mode = v1alpha1.ModeEnforce })
			require.NoError(t, f.admin.Delete(t.Context(), foreign))
			require.NotEqual(t, foreign.UID, f.programmed().UID, "the name is free, so the policy comes by itself")
		})
	}
}

func TestDisable(t *testing.T) {
	f := newFixture(t)
	f.createApp()
	f.programmed()
	f.edit(func(app *v1alpha1.AppIsolation) { app.Spec.Mode = v1alpha1.ModeDisabled })
	f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonDisabled)
	f.condition(v1alpha1.ConditionAccepted, metav1.ConditionTrue, v1alpha1.ReasonAccepted)
	require.Nil(t, f.policy())
	require.Nil(t, f.app().Status.Policy)

	f.edit(func(app *v1alpha1.AppIsolation) { app.Spec.Mode = v1alpha1.ModeEnforce })
	f.programmed()
}

func TestDeleteLeavesThePolicyToGarbageCollection(t *testing.T) {
	f := newFixture(t)
	f.createApp()
	policy := f.programmed()
	require.NoError(t, f.admin.Delete(t.Context(), f.app()))
	time.Sleep(apiservertest.Never)
	require.True(t, apierrors.IsNotFound(f.admin.Get(t.Context(), f.key, &v1alpha1.AppIsolation{})), "no finalizer holds it")
	require.Equal(t, policy.ResourceVersion, f.policy().ResourceVersion, "no garbage collector runs here, and no other program writes it")
}
