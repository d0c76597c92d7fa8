package dataplane

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// The agent lists what the operator makes of the same pods: a digest that differs would
// leave a status Progressing for good. A pod that has no address yet is listed too.
func TestTheReportListsPodsAsTheOperatorSeesThem(t *testing.T) {
	s := newAgentScene(t)
	node := &corev1.Node{}
	require.NoError(t, s.admin.Get(t.Context(), client.ObjectKey{Name: s.nodeName}, node))
	node.Status.NodeInfo.BootID = "a-boot"
	require.NoError(t, s.admin.Status().Update(t.Context(), node))
	first := s.pod("first", map[string]string{"app": "server", "tier": "back"}, s.node.AddPod(t, "10.244.1.110"))
	s.start()
	defer s.stop()
	require.Never(t, func() bool { return len(s.report().Status.Pods) > 0 }, time.Second, 100*time.Millisecond, "no policy asks")

	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "server"}}
	require.NoError(t, yaml.Unmarshal([]byte(`{podSelector: {matchLabels: {app: server}}, policyTypes: [Ingress]}`), &np.Spec))
	require.NoError(t, s.admin.Create(t.Context(), np))
	lists := func(pods ...*corev1.Pod) func() bool {
		var want []string
		for _, pod := range pods {
			want = append(want, v1alpha1.PodDigest(pod.UID, pod.Labels))
		}
		slices.Sort(want)
		return func() bool { return slices.Equal(want, s.report().Status.Pods) }
	}
	s.eventually(lists(first), "the pod is listed")
	require.True(t, s.enforces(np), "with the policy")
	require.Equal(t, node.UID, s.report().Status.NodeUID)
	require.Equal(t, "a-boot", s.report().Status.BootID)

	second := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "second", Labels: map[string]string{"app": "server"}}}
	second.Spec = *first.Spec.DeepCopy()
	second.Spec.Volumes, second.Spec.Containers[0].VolumeMounts = nil, nil
	require.NoError(t, s.admin.Create(t.Context(), second))
	s.eventually(lists(first, second), "one without an address")
	first.Labels["tier"] = "front"
	require.NoError(t, s.admin.Update(t.Context(), first))
	s.eventually(lists(first, second), "one with other labels")
	version := s.report().ResourceVersion
	require.NoError(t, s.admin.Delete(t.Context(), second, client.GracePeriodSeconds(0)))
	require.Never(t, func() bool { return s.report().ResourceVersion != version }, 3*time.Second, 100*time.Millisecond,
		"that a pod is gone costs no write")
}
