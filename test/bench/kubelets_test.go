package bench

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// An API server of 10,000 pods hears from their kubelets all the time. One that nobody
// wrote to for seconds is another thing: its memory went cold, and its first answers
// take several times as long.

const (
	// statusesPerSecond is how many statuses of remote pods are written while delays
	// are measured, in clusters of any size.
	statusesPerSecond = 10
	// kubeletsWarm is how long they are before the first sample.
	kubeletsWarm = time.Second
)

// runKubelets writes statuses of remote pods until the returned function is called.
func (s *scene) runKubelets(t testing.TB) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		ticker := time.NewTicker(time.Second / statusesPerSecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-ticker.C:
			}
			if err := s.writeStatus(ctx, s.remotePod(s.statuses)); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
			s.statuses++
		}
	}()
	time.Sleep(kubeletsWarm)
	return func() {
		cancel()
		require.NoError(t, <-done)
	}
}

// writeStatus is a kubelet's word that a pod is still ready, which changes nothing for
// an agent.
func (s *scene) writeStatus(ctx context.Context, pod types.NamespacedName) error {
	condition := map[string]any{"type": "Ready", "status": "True", "lastProbeTime": metav1.Now()}
	text, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []any{condition}}})
	if err != nil {
		return err
	}
	_, err = s.api.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, text, metav1.PatchOptions{}, "status")
	return err
}
