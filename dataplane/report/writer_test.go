package report

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// store is a Writer with an API server that keeps the times of its writes and may
// refuse them.
type store struct {
	*Writer
	client  client.Client
	writes  []time.Time
	reads   int
	refused error
}

func newStore(t *testing.T, objects ...client.Object) *store {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)))
	s := &store{}
	s.client = fake.NewClientBuilder().WithScheme(scheme).WithObjects(objects...).WithStatusSubresource(&v1alpha1.NodeEnforcement{}).
		WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
				if _, ok := o.(*v1alpha1.NodeEnforcement); ok {
					s.reads++
				}
				return c.Get(ctx, key, o, options...)
			},
			SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, options ...client.SubResourceUpdateOption) error {
				s.writes = append(s.writes, time.Now())
				if s.refused != nil {
					return s.refused
				}
				return c.SubResource(sub).Update(ctx, o, options...)
			},
		}).Build()
	s.Writer = NewWriter(s.client, s.client, "node-1", logr.Discard())
	return s
}

func node(uid types.UID) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: uid}}
}

// enforcing reports one policy at a generation.
func enforcing(generation int64) *v1alpha1.NodeEnforcementStatus {
	return &v1alpha1.NodeEnforcementStatus{
		Backend:     "iptables-nft",
		PolicyCount: 1,
		Policies:    []v1alpha1.EnforcedPolicy{{UID: "a", Generation: generation}},
		Conditions:  []metav1.Condition{{Type: v1alpha1.NodeConditionDataplaneSynced, Status: metav1.ConditionTrue, Reason: v1alpha1.NodeReasonSynced}},
	}
}

func (s *store) stored(t *testing.T) *v1alpha1.NodeEnforcement {
	t.Helper()
	report := &v1alpha1.NodeEnforcement{}
	require.NoError(t, s.client.Get(context.Background(), client.ObjectKey{Name: "node-1"}, report))
	return report
}

// begin runs the Writer until the test ends.
func (s *store) begin(t *testing.T) {
	t.Helper()
	go func() { _ = s.Start(t.Context()) }()
	synctest.Wait()
}

func TestOnlyAChangeIsWritten(t *testing.T) {
	ctx, s := context.Background(), newStore(t, node("node-uid"))
	require.NoError(t, s.write(ctx))
	require.Empty(t, s.writes, "nothing is wanted yet")

	s.Want(enforcing(1))
	require.NoError(t, s.write(ctx))
	require.NoError(t, s.write(ctx))
	require.Len(t, s.writes, 1)
	report := s.stored(t)
	require.EqualValues(t, 1, report.Status.Policies[0].Generation)
	require.Equal(t, types.UID("node-uid"), report.OwnerReferences[0].UID)
	since := report.Status.Conditions[0].LastTransitionTime
	require.False(t, since.IsZero())

	s.Want(enforcing(2))
	require.NoError(t, s.write(ctx))
	report = s.stored(t)
	require.EqualValues(t, 2, report.Status.Policies[0].Generation)
	require.Equal(t, since, report.Status.Conditions[0].LastTransitionTime, "a condition that stays keeps its time")
}

// The Writer doesn't read its report before it writes it. A report that another program changed or
// deleted is read and corrected.
func TestAWriteIsOneRequest(t *testing.T) {
	ctx, s := context.Background(), newStore(t, node("node-uid"))
	write := func(generation int64) {
		s.Want(enforcing(generation))
		s.reads = 0
		require.NoError(t, s.write(ctx))
	}
	write(1)
	write(2)
	require.Zero(t, s.reads)

	forged := s.stored(t)
	forged.Status.Policies[0].Generation = 9
	require.NoError(t, s.client.Status().Update(ctx, forged))
	write(3)
	require.Equal(t, 1, s.reads)
	require.EqualValues(t, 3, s.stored(t).Status.Policies[0].Generation)

	require.NoError(t, s.client.Delete(ctx, s.stored(t)))
	write(4)
	require.EqualValues(t, 4, s.stored(t).Status.Policies[0].Generation)
	write(5)
	require.Zero(t, s.reads)
}

func TestAWriterWakesOnChangeOnly(t *testing.T) {
	s := newStore(t)
	s.Want(enforcing(1))
	require.Len(t, s.wake, 1)
	<-s.wake
	later := enforcing(1)
	later.Conditions[0].LastTransitionTime = metav1.Now()
	s.Want(later)
	require.Empty(t, s.wake, "nothing is new")
	s.Want(enforcing(2))
	require.Len(t, s.wake, 1)
}

// A node that changes a hundred times in a second for ten seconds costs the API
// server a write every two seconds at most, and the last state is stored.
func TestWritesAreTwoSecondsApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, node("node-uid"))
		s.begin(t)
		start := time.Now()
		for generation := int64(1); generation <= 1000; generation++ {
			s.Want(enforcing(generation))
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(Every + jitter)
		synctest.Wait()
		require.Less(t, s.writes[0].Sub(start), 10*time.Millisecond, "the first at once")
		for i := 1; i < len(s.writes); i++ {
			require.GreaterOrEqual(t, s.writes[i].Sub(s.writes[i-1]), 2*time.Second)
			require.Less(t, s.writes[i].Sub(s.writes[i-1]), Every+jitter+10*time.Millisecond, "and no longer than needed")
		}
		require.EqualValues(t, 1000, s.stored(t).Status.Policies[0].Generation)
	})
}

// The Writer writes nothing while the node doesn't change, however long. A deleted report comes
// back.
func TestNoHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, node("node-uid"))
		s.begin(t)
		s.Want(enforcing(1))
		for range 24 * 60 {
			time.Sleep(time.Minute)
			s.Want(enforcing(1))
		}
		require.Len(t, s.writes, 1)
		require.NoError(t, s.client.Delete(t.Context(), s.stored(t)))
		time.Sleep(recheckEvery + time.Second)
		synctest.Wait()
		require.Len(t, s.writes, 2)
		require.EqualValues(t, 1, s.stored(t).Status.Policies[0].Generation)
	})
}

// While the API server refuses, the waits double up to some seconds; then the report
// is stored.
func TestRefusedWritesAreTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, node("node-uid"))
		s.refused = errors.New("refused")
		s.begin(t)
		s.Want(enforcing(1))
		time.Sleep(10 * time.Minute)
		most := int(10 * time.Minute / retryMost)
		require.Less(t, len(s.writes), most+5)
		require.Greater(t, len(s.writes), most/2)
		s.refused = nil
		time.Sleep(retryMost + Every + jitter)
		synctest.Wait()
		require.EqualValues(t, 1, s.stored(t).Status.Policies[0].Generation)
	})
}

// The field agent is the operator's: a report keeps it as it is stored, and a write of
// the operator that the agent hasn't seen costs the agent one more request and no wait.
func TestTheOperatorsFieldStays(t *testing.T) {
	ctx, s := context.Background(), newStore(t, node("node-uid"))
	s.Want(enforcing(1))
	require.NoError(t, s.write(ctx))

	byOperator := s.stored(t)
	byOperator.Status.Agent = &v1alpha1.NodeAgent{State: v1alpha1.AgentNotReady, Since: metav1.Now().Rfc3339Copy()}
	require.NoError(t, s.client.Status().Update(ctx, byOperator))
	s.writes, s.reads = nil, 0
	require.NoError(t, s.write(ctx))
	require.Empty(t, s.writes, "what the operator wrote is no change for the agent")

	s.Want(enforcing(2))
	require.NoError(t, s.write(ctx))
	require.Equal(t, 2, len(s.writes), "one that is refused for its resourceVersion, and one that isn't")
	require.Equal(t, 1, s.reads)
	report := s.stored(t)
	require.EqualValues(t, 2, report.Status.Policies[0].Generation)
	require.NotNil(t, report.Status.Agent)
	require.Equal(t, v1alpha1.AgentNotReady, report.Status.Agent.State)

	// An agent that starts reads first, and so keeps it as well.
	again := NewWriter(s.client, s.client, "node-1", s.log)
	again.Want(enforcing(3))
	require.NoError(t, again.write(ctx))
	require.Equal(t, v1alpha1.AgentNotReady, s.stored(t).Status.Agent.State)
}

// A Node that is registered again has its report back within ten seconds, whether
// the garbage collector deletes the old Node's before the Writer sees the new Node,
// or as late as some seconds after the new Node owns it.
func TestARegisteredAgainNodeHasItsReport(t *testing.T) {
	for name, late := range map[string]time.Duration{"deleted before": 0, "deleted at once": time.Millisecond, "deleted late": 50 * time.Second} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newStore(t, node("old-uid"))
				s.begin(t)
				s.SawNode(node("old-uid"))
				s.Want(enforcing(1))
				time.Sleep(time.Minute)
				old := s.stored(t)
				require.NoError(t, s.client.Delete(t.Context(), node("old-uid")))
				if late == 0 {
					require.NoError(t, s.client.Delete(t.Context(), old))
				}
				require.NoError(t, s.client.Create(t.Context(), node("new-uid")))
				s.SawNode(node("new-uid"))
				time.Sleep(late)
				if late > 0 {
					_ = s.client.Delete(t.Context(), old)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				report := s.stored(t)
				require.Equal(t, types.UID("new-uid"), report.OwnerReferences[0].UID)
				require.EqualValues(t, 1, report.Status.Policies[0].Generation)
			})
		})
	}
}

// The reads after a Node was registered again end. A Node that only changes costs none.
func TestANodeThatChangesCostsNoRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(t, node("uid"))
		s.begin(t)
		s.SawNode(node("uid"))
		s.Want(enforcing(1))
		time.Sleep(time.Second)
		s.reads = 0
		for range 100 {
			s.SawNode(node("uid"))
			time.Sleep(time.Second)
		}
		require.Zero(t, s.reads)
		s.SawNode(node("another"))
		time.Sleep(ownedFor + ownedEvery)
		s.reads = 0
		time.Sleep(recheckEvery - time.Minute)
		require.LessOrEqual(t, s.reads, 1, "of the slow recheck alone")
	})
}

// A Node that was made again owns the report that its predecessor left.
func TestReportChangesItsOwner(t *testing.T) {
	left := &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{
		Name:            "node-1",
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: "node-1", UID: "old-uid"}},
	}}
	s := newStore(t, left, node("new-uid"))
	s.Want(enforcing(1))
	require.NoError(t, s.write(t.Context()))
	owners := s.stored(t).OwnerReferences
	require.Len(t, owners, 1)
	require.Equal(t, types.UID("new-uid"), owners[0].UID)
}

func TestReportNeedsItsNode(t *testing.T) {
	s := newStore(t)
	s.Want(enforcing(1))
	require.ErrorContains(t, s.write(t.Context()), "getting Node node-1")
}

func TestSameIgnoresTimes(t *testing.T) {
	a := enforcing(1)
	b := a.DeepCopy()
	b.Conditions[0].LastTransitionTime = metav1.Now()
	require.True(t, same(a, b))
	require.False(t, b.Conditions[0].LastTransitionTime.IsZero(), "the arguments stay as they are")
	b.Conditions[0].Status = metav1.ConditionFalse
	require.False(t, same(a, b))
}

// A report says which Node it is about and which boot of it, so that what was reported
// before proves nothing. A Node whose kubelet tells the new boot late is followed.
func TestAReportNamesItsBoot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		booted := node("uid")
		booted.Status.NodeInfo.BootID = "first"
		s := newStore(t, booted)
		s.SawNode(booted)
		s.begin(t)
		s.Want(enforcing(1))
		synctest.Wait()
		report := s.stored(t)
		require.Equal(t, types.UID("uid"), report.Status.NodeUID)
		require.Equal(t, "first", report.Status.BootID)

		time.Sleep(time.Minute)
		require.NoError(t, s.client.Get(t.Context(), client.ObjectKeyFromObject(booted), booted))
		booted.Status.NodeInfo.BootID = "second"
		require.NoError(t, s.client.Status().Update(t.Context(), booted))
		s.writes = nil
		s.SawNode(booted)
		time.Sleep(Every + jitter)
		synctest.Wait()
		require.Equal(t, "second", s.stored(t).Status.BootID)
		require.Len(t, s.writes, 1)
		for range 10 { // a Node that only changes otherwise
			s.SawNode(booted)
			time.Sleep(time.Minute)
		}
		require.Len(t, s.writes, 1)
	})
}
