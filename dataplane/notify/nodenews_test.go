package notify

import (
	"errors"
	"fmt"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/tools/events"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/report"
)

// A reason that comes and goes is told once each: by the metric, which has a series for
// every reason from the start, and by an event of the Node.
func TestDegradationsAreTold(t *testing.T) {
	recorder := events.NewFakeRecorder(100)
	m := metrics.New(metrics.Labels{Degraded: report.DegradedReasons})
	news := NewNodeNews("node-1", recorder, m, logr.Discard())
	series := func(reason string) float64 {
		value, exists := metricstest.Scrape(t, m)["degraded "+reason]
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

	require.False(t, news.Tell(nil), "nothing new")
	for _, reason := range report.DegradedReasons {
		require.Zero(t, series(reason), reason)
	}
	require.True(t, news.Tell(one))
	require.False(t, news.Tell(one))
	require.Equal(t, 1.0, series(ipvs))
	require.Zero(t, series(uncut))
	require.True(t, news.Tell(two))
	require.Equal(t, 1.0, series(uncut))
	got := said()
	require.Len(t, got, 2)
	require.Contains(t, got[0], "Warning ProxyModeIPVS a link is there")
	require.Contains(t, got[1], "Warning ConnectionsUncut no table")

	require.True(t, news.Tell(two[1:]))
	require.Zero(t, series(ipvs))
	require.Equal(t, 1.0, series(uncut))
	require.True(t, news.Tell(report.DegradedBy(uncut, errors.New("no right"))), "the message is another")
	require.True(t, news.Tell(nil))
	got = said()
	require.Len(t, got, 2)
	require.Contains(t, got[0], "Normal Recovered ProxyModeIPVS is over")
	require.Contains(t, got[1], "Normal Recovered ConnectionsUncut is over")
}

// However often a reason comes and goes, the API server gets few events.
func TestAReasonThatFlapsGetsFewEvents(t *testing.T) {
	recorder := events.NewFakeRecorder(100 * Burst)
	news := NewNodeNews("node-1", recorder, metrics.New(metrics.Labels{Degraded: report.DegradedReasons}), logr.Discard())
	for i := range 10 * Burst {
		news.Tell(report.DegradedBy(v1alpha1.NodeReasonConnectionsUncut, fmt.Errorf("attempt %d", i)))
		news.Tell(nil)
	}
	require.InDelta(t, Burst, len(recorder.Events), 1)
}
