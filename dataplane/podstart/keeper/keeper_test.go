package keeper

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/notify"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/report"
)

func newTestStarts(mode Mode) (*Keeper, *node.Model) {
	m := node.New("node-1")
	return New(mode, m, nil, logr.Discard()), m
}

// A start returns with the sync that has put the pod into the kernel, not before.
func TestAStartIsHeldUntilItsSync(t *testing.T) {
	s, m := newTestStarts(GuardAuto)
	m.SetPod(policytest.APIPod("a", "node-1"))
	done := make(chan struct{})
	go func() {
		s.Start(t.Context(), sandboxOf("s", "a", "10.0.0.1"))
		close(done)
	}()
	<-m.Changed
	s.Synced(0)
	select {
	case <-done:
		require.FailNow(t, "not held")
	case <-time.After(100 * time.Millisecond):
	}
	s.Synced(m.View(0).Revision)
	<-done
	require.False(t, s.stalled)
}

// A start that was held in vain shortens the wait of the next, until a sync succeeds.
func TestAStartIsNotHeldForEver(t *testing.T) {
	s, m := newTestStarts(GuardAuto)
	m.SetPod(policytest.APIPod("a", "node-1"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	recorder := events.NewFakeRecorder(100)
	s.events = recorder
	said := recorder.Events
	s.Start(ctx, sandboxOf("s", "a", "10.0.0.1"))
	require.True(t, s.stalled)

	begun := time.Now()
	s.Start(t.Context(), sandboxOf("s", "a", "10.0.0.2"))
	require.Less(t, time.Since(begun), knownWithin)
	require.Len(t, said, 2)
	require.Contains(t, <-said, "Warning "+v1alpha1.EventReasonPodNotProgrammed+" The rules of this pod were not in force within")
	s.Synced(m.View(0).Revision)
	require.False(t, s.stalled)
}

// However many starts are late, the API server gets few events.
func TestLateStartsGetFewEvents(t *testing.T) {
	s, _ := newTestStarts(GuardAuto)
	recorder := events.NewFakeRecorder(10 * notify.Burst)
	s.events = recorder
	sandbox := sandboxOf("s", "a", "10.0.0.1")
	for range 10 * notify.Burst {
		s.tell(&sandbox, time.Second)
	}
	require.InDelta(t, notify.Burst, len(recorder.Events), 1)
}

func TestThePodStartCondition(t *testing.T) {
	withCIDR := func(m *node.Model) { m.GuardRanges([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}) }
	lost := errors.New("connection refused")
	silent := &podstart.SilentError{Runtime: "containerd", Version: "v2.0.5"}
	for _, row := range []struct {
		mode   Mode
		do     func(s *Keeper, m *node.Model)
		status metav1.ConditionStatus
		reason string
	}{
		{GuardOff, func(*Keeper, *node.Model) {}, metav1.ConditionFalse, v1alpha1.NodeReasonOff},
		{"", func(*Keeper, *node.Model) {}, metav1.ConditionFalse, v1alpha1.NodeReasonOff},
		{GuardAuto, func(s *Keeper, m *node.Model) { withCIDR(m); s.Connection(lost) }, metav1.ConditionFalse, v1alpha1.NodeReasonNRIUnavailable},
		{GuardAuto, func(s *Keeper, m *node.Model) { withCIDR(m); s.Connection(nil) }, metav1.ConditionTrue, v1alpha1.NodeReasonRuntimeConnected},
		{GuardAuto, func(s *Keeper, m *node.Model) { withCIDR(m); s.Connection(nil); s.Connection(lost) }, metav1.ConditionTrue, v1alpha1.NodeReasonGuardOnly},
		{GuardAuto, func(s *Keeper, m *node.Model) { s.Connection(nil) }, metav1.ConditionFalse, v1alpha1.NodeReasonNoPodCIDRs},
		{GuardAlways, func(s *Keeper, m *node.Model) { withCIDR(m); m.GuardFromNowOn() }, metav1.ConditionTrue, v1alpha1.NodeReasonGuardOnly},
		{GuardAuto, func(s *Keeper, m *node.Model) { withCIDR(m); s.Connection(silent) }, metav1.ConditionFalse, v1alpha1.NodeReasonRuntimeTellsNoAddresses},
		{GuardAuto, func(s *Keeper, m *node.Model) { withCIDR(m); s.Connection(nil); s.Connection(silent) }, metav1.ConditionFalse, v1alpha1.NodeReasonRuntimeTellsNoAddresses},
		{GuardAuto, func(s *Keeper, m *node.Model) { withCIDR(m); s.Connection(silent); s.Connection(nil) }, metav1.ConditionTrue, v1alpha1.NodeReasonRuntimeConnected},
		{GuardAuto, func(s *Keeper, m *node.Model) { withCIDR(m); s.Connection(silent); s.KeepGuard() }, metav1.ConditionFalse, v1alpha1.NodeReasonRuntimeTellsNoAddresses},
		{GuardAuto, func(s *Keeper, m *node.Model) { withCIDR(m); s.KeepGuard(); s.Connection(silent) }, metav1.ConditionFalse, v1alpha1.NodeReasonRuntimeTellsNoAddresses},
		{GuardAuto, func(s *Keeper, m *node.Model) { withCIDR(m); s.Connection(lost); s.KeepGuard() }, metav1.ConditionTrue, v1alpha1.NodeReasonGuardOnly},
		{GuardAlways, func(s *Keeper, m *node.Model) { withCIDR(m); m.GuardFromNowOn(); s.Connection(silent) }, metav1.ConditionTrue, v1alpha1.NodeReasonGuardOnly},
		{GuardAuto, func(s *Keeper, m *node.Model) {
			withCIDR(m)
			s.Connection(nil)
			m.SetPod(policytest.APIPod("a", "node-1", "10.0.0.7"))
		}, metav1.ConditionTrue, v1alpha1.NodeReasonRuntimeConnected},
		{GuardAuto, func(s *Keeper, m *node.Model) {
			withCIDR(m)
			s.Connection(nil)
			m.SetPod(policytest.APIPod("a", "node-1", "10.9.9.9"))
		}, metav1.ConditionFalse, v1alpha1.NodeReasonPodsOutsidePodCIDRs},
		{GuardAuto, func(s *Keeper, m *node.Model) {
			withCIDR(m)
			s.Connection(nil)
			m.SetPod(policytest.APIPod("a", "node-1", "10.0.0.7", "fd00::7"))
		}, metav1.ConditionFalse, v1alpha1.NodeReasonPodsOutsidePodCIDRs},
		{GuardAuto, func(s *Keeper, m *node.Model) {
			withCIDR(m)
			s.Connection(nil)
			m.SetPod(policytest.APIPod("a", "node-2", "10.9.9.9"))
		}, metav1.ConditionTrue, v1alpha1.NodeReasonRuntimeConnected},
		{GuardAlways, func(s *Keeper, m *node.Model) {
			withCIDR(m)
			m.GuardFromNowOn()
			m.SetPod(policytest.APIPod("a", "node-1", "10.9.9.9"))
		}, metav1.ConditionFalse, v1alpha1.NodeReasonPodsOutsidePodCIDRs},
		{GuardAuto, func(s *Keeper, m *node.Model) {
			s.Connection(nil)
			m.SetPod(policytest.APIPod("a", "node-1", "10.9.9.9"))
		}, metav1.ConditionFalse, v1alpha1.NodeReasonNoPodCIDRs},
		{GuardOff, func(s *Keeper, m *node.Model) { withCIDR(m); s.Connection(silent) }, metav1.ConditionFalse, v1alpha1.NodeReasonOff},
	} {
		s, m := newTestStarts(row.mode)
		row.do(s, m)
		condition := s.Condition()
		if isSilent(s.reason) && s.Guards() {
			require.Contains(t, condition.Message, "containerd v2.0.5", row.reason)
		}
		require.Equal(t, row.reason, condition.Reason)
		require.Equal(t, row.status, condition.Status, row.reason)
		require.NotEmpty(t, condition.Message)
	}
}

// The condition names a pod that the guard doesn't cover, always the same of several, and
// is True again once that pod is gone.
func TestThePodStartConditionNamesAPod(t *testing.T) {
	s, m := newTestStarts(GuardAlways)
	m.GuardFromNowOn()
	m.SetNode(policytest.NodeWith("10.0.0.0/24"))
	m.SetPod(policytest.PodOn("fine", "node-1", "10.0.0.7"))
	require.Equal(t, metav1.ConditionTrue, s.Condition().Status)
	for _, name := range []string{"c", "a", "b"} {
		m.SetPod(policytest.PodOn(name, "node-1", "10.9.9.9"))
	}
	require.Equal(t, "3 of 4 pods have an address outside of the Node's podCIDRs, pod default/a for one (10.9.9.9). "+
		"The guard doesn't close such an address before the pod's rules are in force", s.Condition().Message)
	for _, name := range []string{"c", "a", "b"} {
		m.DeletePod(policytest.PodOn(name, "node-1").Key())
	}
	require.Equal(t, metav1.ConditionTrue, s.Condition().Status)
}

// The condition says where the guard spares addresses.
func TestThePodStartConditionNamesSparedAddresses(t *testing.T) {
	s, m := newTestStarts(GuardAuto)
	m.SetNode(policytest.NodeWith("10.0.0.0/24"))
	s.Connection(nil)
	require.NotContains(t, s.Condition().Message, "Pods of other nodes")
	m.SetPod(policytest.PodOn("remote", "node-2", "10.0.0.7"))
	require.Equal(t, v1alpha1.NodeReasonRuntimeConnected, s.Condition().Reason)
	require.Contains(t, s.Condition().Message, "Pods of other nodes have addresses of this Node's podCIDRs and pass the guard")
	require.LessOrEqual(t, len(s.Condition().Message), report.MaxMessage)
	m.DeletePod(types.NamespacedName{Namespace: "default", Name: "remote"})
	require.NotContains(t, s.Condition().Message, "Pods of other nodes")
}

func sandboxOf(id, uid, addr string) podstart.Sandbox {
	return podstart.Sandbox{ID: id, UID: types.UID(uid), Namespace: "default", Name: "web", Addrs: []netip.Addr{netip.MustParseAddr(addr)}}
}

// A pod start that isn't guarded is a series of its own, unless that was asked for.
func TestUnguardedPodStartsHaveAMetric(t *testing.T) {
	m := metrics.New(metrics.Labels{Degraded: report.DegradedReasons})
	for _, row := range []struct {
		status metav1.ConditionStatus
		reason string
		want   float64
	}{
		{metav1.ConditionFalse, v1alpha1.NodeReasonNRIUnavailable, 1},
		{metav1.ConditionTrue, v1alpha1.NodeReasonGuardOnly, 0},
		{metav1.ConditionFalse, v1alpha1.NodeReasonNoPodCIDRs, 1},
		{metav1.ConditionFalse, v1alpha1.NodeReasonOff, 0},
	} {
		m.Unguarded(IsUnguarded(&metav1.Condition{Status: row.status, Reason: row.reason}))
		require.Equal(t, row.want, metricstest.Scrape(t, m)["pod_starts_unguarded"], row.reason)
	}
}
