package dataplane

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
)

// The metric names the pods that may forge packets, where policies isolate pods, and no
// other.
func TestPodsWithRawSocketsAreNamed(t *testing.T) {
	m, e := node.New(thisNode), newMetrics()
	raws := &rawSockets{pods: m.WithRawSockets}
	e.AskForRawSockets(raws.names)
	raw := func(namespace, name, node string, drop ...corev1.Capability) {
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		pod.Spec.NodeName = node
		pod.Spec.Containers = []corev1.Container{{SecurityContext: &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Drop: drop}}}}
		pod.Status.PodIPs = []corev1.PodIP{{IP: "10.244.1." + map[string]string{"a": "1", "b": "2", "c": "3", "d": "4"}[name]}}
		modeltest.See(m, pod)
	}
	raw("isolated", "a", thisNode)
	raw("isolated", "b", thisNode, "ALL")
	raw("open", "c", thisNode)
	raw("isolated", "d", "elsewhere")
	series := func() []string {
		raws.follow(m.View(0).Endpoints)
		var found []string
		for name := range metricstest.Scrape(t, e) {
			if strings.HasPrefix(name, "raw_socket_pod") {
				found = append(found, name)
			}
		}
		return found
	}
	require.Empty(t, series())
	modeltest.See(m, &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "isolated", Name: "p", UID: "p"},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	})
	require.Equal(t, []string{"raw_socket_pod isolated a"}, series())
}
