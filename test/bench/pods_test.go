package bench

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/test/bench/results"
)

// guardFlag closes addresses of the node that the agent doesn't know yet. Without it
// such an address is open, and there is no moment when it opens.
const guardFlag = "--pod-start-guard=Always"

// agentFlags are those of a scenario's agent.
func (s *scene) agentFlags() []string { return append([]string{guardFlag}, s.options.flags...) }

// measurePods starts pods on the node, which a policy isolates and lets one sender
// reach.
func (s *scene) measurePods(t testing.TB) []results.Figure {
	t.Helper()
	var opened []time.Duration
	detail := func() string { return fmt.Sprintf("%d of %d samples", len(opened), s.options.samples) }
	during("starting pods", detail, func() {
		defer s.runKubelets(t)()
		for i := range s.options.samples {
			opened = append(opened, s.startPod(t, i))
		}
	})
	return []results.Figure{results.Milliseconds(results.PodOpens, opened)}
}

// startPod returns how long it took from just before the write of a pod's address to
// the API until it was reached.
func (s *scene) startPod(t testing.TB, i int) time.Duration {
	t.Helper()
	pods := s.api.CoreV1().Pods(namespaceName(targetNamespace))
	host := s.node.AddPod(t, localAddr(firstNew+i%newAddrs).String())
	defer s.node.RemovePod(t, host)
	pod := newPod(namespaceName(targetNamespace), fmt.Sprintf("new-%d", i), appLabels(0))
	place(pod, localNode, host.Addrs[0])
	status := pod.Status
	pod.Status = corev1.PodStatus{}
	stored, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)

	packets := startStream(t, s.member, host)
	defer packets.stop()
	pause()
	_, early := packets.last()
	require.False(t, early, "datagrams reach a pod that the agent doesn't know")
	took := packets.opens(t, func() {
		stored.Status = status
		_, err := pods.UpdateStatus(t.Context(), stored, metav1.UpdateOptions{})
		require.NoError(t, err)
	})
	now := int64(0)
	require.NoError(t, pods.Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}))
	return took
}
