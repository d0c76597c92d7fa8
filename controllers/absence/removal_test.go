package absence

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// holdTheLead keeps every operator of the test from leading.
func holdTheLead(t *testing.T, admin client.Client) {
	t.Helper()
	lease := &coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: apiservertest.OperatorNamespace, Name: "moat-operator"},
		Spec: coordinationv1.LeaseSpec{
			HolderIdentity: new("another"), LeaseDurationSeconds: new(int32(3600)),
			AcquireTime: new(metav1.NowMicro()), RenewTime: new(metav1.NowMicro()),
		},
	}
	require.NoError(t, admin.Create(t.Context(), lease))
	t.Cleanup(func() { require.NoError(t, admin.Delete(context.Background(), lease)) })
}

// removals are the ways by which an operator may see first that Moat is removed.
var removals = map[string]func(s *scene){
	"the marker is deleted":            func(s *scene) { s.remove(&corev1.ConfigMap{}, v1alpha1.ReleaseMarker) },
	"the Deployment is deleted":        func(s *scene) { s.remove(&appsv1.Deployment{}, deploymentName) },
	"the DaemonSet is deleted":         func(s *scene) { s.remove(&appsv1.DaemonSet{}, "moat-agent") },
	"the namespace is Terminating":     func(s *scene) { s.remove(&corev1.Namespace{}, s.namespace) },
	"the Deployment is scaled to zero": (*scene).scaleToZero,
}

func (s *scene) remove(object client.Object, name string) {
	s.t.Helper()
	object.SetName(name)
	if _, cluster := object.(*corev1.Namespace); !cluster {
		object.SetNamespace(s.namespace)
	}
	require.NoError(s.t, s.admin.Delete(context.Background(), object, client.PropagationPolicy(metav1.DeletePropagationBackground)))
}

func (s *scene) scaleToZero() {
	s.t.Helper()
	deployment := &appsv1.Deployment{}
	require.NoError(s.t, s.admin.Get(context.Background(), client.ObjectKey{Namespace: s.namespace, Name: deploymentName}, deployment))
	deployment.Spec.Replicas = new(int32(0))
	require.NoError(s.t, s.admin.Update(context.Background(), deployment))
}

// An operator that doesn't lead takes the taints away as soon as it sees one sign.
func TestEveryOperatorTakesTheTaintsAwayWhenMoatIsRemoved(t *testing.T) {
	holdTheLead(t, apiServer.Admin(t))
	for name, remove := range removals {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			members := []*member{s.member("a"), s.member("b"), s.member("c")}
			for _, m := range members {
				m.taint()
			}
			s.operate(Options{Mode: Taint}, s.standBy)
			require.Never(t, func() bool { return countTainted(members) < 3 }, passEvery, apiservertest.Tick, "a taint goes before")
			start := time.Now()
			remove(s)
			s.eventually(func() bool { return countTainted(members) == 0 }, "the taints go")
			t.Logf("gone after %s", time.Since(start))
			for _, m := range members {
				require.Equal(t, []corev1.Taint{foreign}, m.now().Spec.Taints)
			}
		})
	}
}

// An operator that is told to stop right after the sign takes the taints away before
// it has ended.
func TestAnOperatorThatIsStoppedFirstTakesTheTaintsAway(t *testing.T) {
	holdTheLead(t, apiServer.Admin(t))
	for name, remove := range removals {
		t.Run(name, func(t *testing.T) {
			s := newScene(t)
			members := []*member{s.member("a"), s.member("b"), s.member("c")}
			for _, m := range members {
				m.taint()
			}
			stop := s.operate(Options{Mode: Taint}, s.standBy)
			remove(s)
			stop()
			require.Zero(t, countTainted(members))
		})
	}
}

// An operator that only restarts leaves the taints to the next one.
func TestAnOrdinaryStopLeavesTheTaints(t *testing.T) {
	holdTheLead(t, apiServer.Admin(t))
	s := newScene(t)
	m := s.member("a")
	m.end()
	m.taint()
	stop := s.operate(Options{Mode: Taint}, s.standBy)
	stop()
	require.True(t, isTainted(m.now()))
}

// A leader doesn't taint while Moat is removed; where what was deleted is made again,
// as by kubectl replace --force, it does.
func TestARemovalThatIsNoneEnds(t *testing.T) {
	s := newScene(t)
	m := s.member("a")
	s.operate(Options{Mode: Taint})
	m.end()
	s.eventually(func() bool { return isTainted(m.now()) }, "the taint comes")
	s.remove(&corev1.ConfigMap{}, v1alpha1.ReleaseMarker)
	s.eventually(func() bool { return !isTainted(m.now()) }, "the taint goes")
	s.never(func() bool { return isTainted(m.now()) }, "the taint comes while Moat is removed")
	require.NoError(t, s.admin.Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: v1alpha1.ReleaseMarker},
	}))
	s.eventually(func() bool { return isTainted(m.now()) }, "the taint comes again")
}
