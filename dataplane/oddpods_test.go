package dataplane

import (
	"net/netip"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/events"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/watch"
)

// A pod of this node whose status shows an address that is left out gets one event that
// names the address, until the status says something else. Pods of other nodes are theirs
// to report.
func TestOddPodsAreToldOnce(t *testing.T) {
	m, recorder := newModel("node-1"), events.NewFakeRecorder(10)
	o := newOddities(thisNode, recorder, newMetrics(), logr.Discard())
	set := func(pod *corev1.Pod) {
		m.setPod(watch.ParsePod(pod, "node-1"))
		o.tell(m.oddPods())
	}
	set(podObject("far", "node-2", "0.0.0.0"))
	set(podObject("fine", "node-1", "10.0.0.7"))
	require.Empty(t, recorder.Events)

	before := m.revision
	set(podObject("odd", "node-1", "10.0.0.8"))
	set(podObject("odd", "node-1", "10.0.0.8", "0.0.0.0"))
	require.Greater(t, m.revision, before+1, "the sync loop wakes for it")
	require.Equal(t, "Warning "+v1alpha1.EventReasonUnusableAddress+
		" Moat leaves out addresses of this pod's status that no pod can have: 0.0.0.0 (unspecified)", <-recorder.Events)
	require.Equal(t, 1.0, scrape(t, o.metrics)["unusable_pod_addresses"])
	o.tell(m.oddPods())
	require.Empty(t, recorder.Events)

	m.addresses.Bar(map[netip.Addr]struct{}{netip.MustParseAddr("10.0.0.8"): {}})
	o.tell(m.oddPods())
	require.Contains(t, <-recorder.Events, "0.0.0.0 (unspecified), 10.0.0.8 (the node's own)")

	m.deletePod(watch.ParsePod(podObject("odd", "node-1"), "node-1").Key())
	o.tell(m.oddPods())
	require.Equal(t, 0.0, scrape(t, o.metrics)["unusable_pod_addresses"])
	require.Empty(t, recorder.Events)
}

// A pod of this node whose status shows another node's address is told too, and allows that
// node nothing.
func TestAPodThatShowsAnotherNodesAddressIsTold(t *testing.T) {
	m, recorder := newModel("node-1"), events.NewFakeRecorder(10)
	o := newOddities(thisNode, recorder, newMetrics(), logr.Discard())
	host := podObject("kube-proxy", "node-2", "192.0.2.2")
	host.Spec.HostNetwork = true
	m.setPod(watch.ParsePod(podObject("liar", "node-1", "192.0.2.2"), "node-1"))
	o.tell(m.oddPods())
	require.Empty(t, recorder.Events)

	m.setPod(watch.ParsePod(host, "node-1"))
	o.tell(m.oddPods())
	require.Contains(t, <-recorder.Events, "192.0.2.2 (node node-2's)")
	require.Nil(t, m.addresses.Owners(netip.MustParseAddr("192.0.2.2")).Peer)

	host.Status.Phase = corev1.PodFailed // its address may be a pod's now
	m.setPod(watch.ParsePod(host, "node-1"))
	o.tell(m.oddPods())
	require.Equal(t, 0.0, scrape(t, o.metrics)["unusable_pod_addresses"])
	require.NotNil(t, m.addresses.Owners(netip.MustParseAddr("192.0.2.2")).Peer)
}
