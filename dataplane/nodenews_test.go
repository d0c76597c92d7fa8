package dataplane

import (
	"errors"
	"fmt"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/report"
)

// A reason that comes and goes is told once each: by the metric, which has a series for
// every reason from the start, and by an event of the Node.
func TestDegradationsAreTold(t *testing.T) {
	recorder := events.NewFakeRecorder(100)
	m := newMetrics()
	news := newNodeNews("node-1", recorder, m, logr.Discard())
	series := func(reason string) float64 {
		value, exists := scrape(t, m)["degraded "+reason]
		require.True(t, exists, reason)
		return value
	}
	said := func() (said []string) {
		for len(recorder.Events) > 0 {
			said = append(said, <-recorder.Events)
		}
		return said
	}
	const ipvs, uncut = v1alpha1.NodeReasonProxyModeIPVS, v1alpha1.NodeReasonConnectionsUncut
	one := report.DegradedBy(ipvs, errors.New("a link is there"))
	two := append(report.DegradedBy(ipvs, errors.New("a link is there")), report.DegradedBy(uncut, errors.New("no table"))...)

	require.False(t, news.tell(nil), "nothing new")
	for _, reason := range report.DegradedReasons {
		require.Zero(t, series(reason), reason)
	}
	require.True(t, news.tell(one))
	require.False(t, news.tell(one))
	require.Equal(t, 1.0, series(ipvs))
	require.Zero(t, series(uncut))
	require.True(t, news.tell(two))
	require.Equal(t, 1.0, series(uncut))
	got := said()
	require.Len(t, got, 2)
	require.Contains(t, got[0], "Warning ProxyModeIPVS a link is there")
	require.Contains(t, got[1], "Warning ConnectionsUncut no table")

	require.True(t, news.tell(two[1:]))
	require.Zero(t, series(ipvs))
	require.Equal(t, 1.0, series(uncut))
	require.True(t, news.tell(report.DegradedBy(uncut, errors.New("no right"))), "the message is another")
	require.True(t, news.tell(nil))
	got = said()
	require.Len(t, got, 2)
	require.Contains(t, got[0], "Normal Recovered ProxyModeIPVS is over")
	require.Contains(t, got[1], "Normal Recovered ConnectionsUncut is over")
}

// However often a reason comes and goes, the API server gets few events.
func TestAReasonThatFlapsGetsFewEvents(t *testing.T) {
	recorder := events.NewFakeRecorder(100 * eventBurst)
	news := newNodeNews("node-1", recorder, newMetrics(), logr.Discard())
	for i := range 10 * eventBurst {
		news.tell(report.DegradedBy(v1alpha1.NodeReasonConnectionsUncut, fmt.Errorf("attempt %d", i)))
		news.tell(nil)
	}
	require.InDelta(t, eventBurst, len(recorder.Events), 1)
}

// A pod start that isn't guarded is a series of its own, unless that was asked for.
func TestUnguardedPodStartsHaveAMetric(t *testing.T) {
	m := newMetrics()
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
		m.Unguarded(isUnguarded(&metav1.Condition{Status: row.status, Reason: row.reason}))
		require.Equal(t, row.want, scrape(t, m)["pod_starts_unguarded"], row.reason)
	}
}
