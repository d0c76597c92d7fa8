package notify

import (
	"net/netip"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/watch"
)

// A pod of this node whose status shows an address that is left out gets one event that
// names the address, until the status says something else. Pods of other nodes are theirs
// to report.
func TestOddPodsAreToldOnce(t *testing.T) {
	m, recorder := node.New("node-1"), events.NewFakeRecorder(10)
	o := NewOddities("node-1", recorder, metrics.New(metrics.Labels{Degraded: report.DegradedReasons}), logr.Discard())
	set := func(pod *corev1.Pod) {
		m.SetPod(watch.ParsePod(pod, "node-1"))
		o.Tell(m.OddPods())
	}
	set(policytest.PodObject("far", "node-2", "0.0.0.0"))
	set(policytest.PodObject("fine", "node-1", "10.0.0.7"))
	require.Empty(t, recorder.Events)

	before := m.Present()
	set(policytest.PodObject("odd", "node-1", "10.0.0.8"))
	set(policytest.PodObject("odd", "node-1", "10.0.0.8", "0.0.0.0"))
	require.Greater(t, m.Present(), before+1, "the sync loop wakes for it")
	require.Equal(t, "Warning "+v1alpha1.EventReasonUnusableAddress+
		" Moat leaves out addresses of this pod's status that no pod can have: 0.0.0.0 (unspecified)", <-recorder.Events)
	require.Equal(t, 1.0, metricstest.Scrape(t, o.metrics)["unusable_pod_addresses"])
	o.Tell(m.OddPods())
	require.Empty(t, recorder.Events)

	m.BarOwnAddresses(map[netip.Addr]struct{}{netip.MustParseAddr("10.0.0.8"): {}})
	o.Tell(m.OddPods())
	require.Contains(t, <-recorder.Events, "0.0.0.0 (unspecified), 10.0.0.8 (the node's own)")

	m.DeletePod(watch.ParsePod(policytest.PodObject("odd", "node-1"), "node-1").Key())
	o.Tell(m.OddPods())
	require.Equal(t, 0.0, metricstest.Scrape(t, o.metrics)["unusable_pod_addresses"])
	require.Empty(t, recorder.Events)
}

// A pod of this node whose status shows another node's address is told too, and allows that
// node nothing.
func TestAPodThatShowsAnotherNodesAddressIsTold(t *testing.T) {
	m, recorder := node.New("node-1"), events.NewFakeRecorder(10)
	o := NewOddities("node-1", recorder, metrics.New(metrics.Labels{Degraded: report.DegradedReasons}), logr.Discard())
	host := policytest.PodObject("kube-proxy", "node-2", "192.0.2.2")
	host.Spec.HostNetwork = true
	m.SetPod(watch.ParsePod(policytest.PodObject("liar", "node-1", "192.0.2.2"), "node-1"))
	o.Tell(m.OddPods())
	require.Empty(t, recorder.Events)

	m.SetPod(watch.ParsePod(host, "node-1"))
	o.Tell(m.OddPods())
	require.Contains(t, <-recorder.Events, "192.0.2.2 (node node-2's)")
	require.Nil(t, ownersOf(m, "192.0.2.2").Peer)

	host.Status.Phase = corev1.PodFailed // its address may be a pod's now
	m.SetPod(watch.ParsePod(host, "node-1"))
	o.Tell(m.OddPods())
	require.Equal(t, 0.0, metricstest.Scrape(t, o.metrics)["unusable_pod_addresses"])
	require.NotNil(t, ownersOf(m, "192.0.2.2").Peer)
}

func ownersOf(m *node.Model, addr string) (owners policy.Owners) {
	m.Peers(func(p node.Peers) { owners = p.Owners(netip.MustParseAddr(addr)) })
	return owners
}
