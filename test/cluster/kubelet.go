package cluster

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/internal/apiservertest"
)

// How a kubelet probes the agent: the chart's readinessProbe, and Kubernetes'
// defaults for what it doesn't say.
const (
	probePeriod   = 3 * time.Second
	probeTimeout  = time.Second
	probeFailures = 3
)

// agentLabels are those by which the operator knows the agents' pods.
var agentLabels = map[string]string{"app.kubernetes.io/name": "moat", "app.kubernetes.io/component": "agent"}

// NewAgentPod returns the pod of a node's agent as the chart's DaemonSet makes it,
// bound to its node.
func NewAgentPod(nodeName string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: apiservertest.OperatorNamespace, Name: "moat-agent-" + nodeName, Labels: agentLabels},
		Spec: corev1.PodSpec{
			NodeName: nodeName, HostNetwork: true, TerminationGracePeriodSeconds: new(int64(0)),
			Containers: []corev1.Container{{Name: "agent", Image: "moat"}},
		},
	}
}

// RunAgentPods makes the pods of all agents and keeps their readiness as a kubelet
// does, until the test ends: a process that has ended is not ready at once, one
// that doesn't answer after some probes.
func (c *Cluster) RunAgentPods(t testing.TB) {
	t.Helper()
	for _, n := range c.Nodes {
		pod := NewAgentPod(n.Name)
		require.NoError(t, c.Client.Create(t.Context(), pod))
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			n.probe(ctx, pod)
		}()
		t.Cleanup(func() {
			cancel()
			<-done
		})
	}
}

// look is how soon a kubelet hears of a container's end, at most a second.
const look = 200 * time.Millisecond

// probe keeps the readiness of the agent's pod until the context ends.
func (n *Node) probe(ctx context.Context, pod *corev1.Pod) {
	var last time.Time
	failures, stored := probeFailures, corev1.ConditionUnknown
	for ctx.Err() == nil {
		switch {
		case !n.agentRuns():
			failures = probeFailures
		case time.Since(last) >= probePeriod && n.AgentReady():
			failures, last = 0, time.Now()
		case time.Since(last) >= probePeriod:
			failures, last = failures+1, time.Now()
		}
		ready := stored // a failure or two change nothing
		if failures == 0 {
			ready = corev1.ConditionTrue
		} else if failures >= probeFailures {
			ready = corev1.ConditionFalse
		}
		if ready != stored && n.setReady(ctx, pod, ready) == nil {
			stored = ready
		}
		sleep(ctx, look)
	}
}

func (n *Node) agentRuns() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.Agent != nil && n.Agent.Running()
}

func (n *Node) setReady(ctx context.Context, pod *corev1.Pod, ready corev1.ConditionStatus) error {
	before := pod.DeepCopy()
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}}
	return n.cluster.Client.Status().Patch(ctx, pod, client.MergeFrom(before))
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
