package bench

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/test/bench/results"
)

// betweenFalls is how long the cluster is quiet before a pod comes.
const betweenFalls = 200 * time.Millisecond

// measureFalls has pods come that AppIsolations select and no agent has seen, one after
// the other, and measures how long it takes from the request to create a pod until a watch
// says that Enforced isn't True any more.
func (f *fleet) measureFalls(t testing.TB, pods int, random *rand.Rand) results.Figure {
	t.Helper()
	var took []time.Duration
	detail := func() string { return fmt.Sprintf("%d of %d", len(took), pods) }
	during("having pods come that no agent has seen", detail, func() {
		for i := range pods {
			s := subject{generated, 1 + random.IntN(f.size.namespaces-1), random.IntN(f.size.appsOf())}
			f.awaitStands(t, s, true)
			time.Sleep(betweenFalls)
			start := time.Now()
			remove := f.addUnseenPod(t, i, s)
			took = append(took, f.awaitStands(t, s, false).Sub(start))
			remove()
		}
	})
	return results.Milliseconds(results.StatusFalls, took)
}

// addUnseenPod creates a pod on a node where the policy is in force already.
func (f *fleet) addUnseenPod(t testing.TB, number int, s subject) (remove func()) {
	t.Helper()
	nodes := f.agents.target[targetKey(namespaceName(s.namespace), s.labels())]
	pod := newPod(namespaceName(s.namespace), fmt.Sprintf("unseen-%d", number), s.labels())
	pod.Spec.NodeName = fleetNode(nodes[number%len(nodes)])
	pods := f.api.CoreV1().Pods(pod.Namespace)
	_, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
	require.NoError(t, err)
	return func() {
		require.NoError(t, pods.Delete(t.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	}
}

// awaitStands waits until a proof stands, or doesn't, and returns since when.
func (f *fleet) awaitStands(t testing.TB, s subject, stands bool) time.Time {
	t.Helper()
	var found proof
	require.Eventually(t, func() bool {
		found = f.proofs.last(s)
		return found.stands == stands || !f.operator.Running()
	}, changeWithinStatus, time.Millisecond, "the proof of %s stands: want %t", s.proofKey(), stands)
	require.True(t, f.operator.Running(), "the operator ended; its log is %s", f.operator.Log)
	return found.changed
}
