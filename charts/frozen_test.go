package charts_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/controllers/pace"
)

// coalesce is how long the operator gathers changes before it looks at a policy: see
// controllers/enforcement.
const coalesce = 250 * time.Millisecond

// How long Enforced can stay True after an agent froze follows from the readiness probe
// and from the operator's pace. The documents name the sum.
func TestTheBoundOfAFrozenAgentIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "config", "agent", "agent.yaml"))
	require.NoError(t, err)
	var installed appsv1.DaemonSet
	require.NoError(t, yaml.Unmarshal(text, &installed))
	for name, agents := range map[string]appsv1.DaemonSet{"chart": agentOf(t, render(t)), "config": installed} {
		t.Run(name, func(t *testing.T) {
			probe := agents.Spec.Template.Spec.Containers[0].ReadinessProbe
			notReady := notReadyWithin(probe)
			require.Equal(t, 10*time.Second, notReady)
			bound := fmt.Sprintf("%g s", (notReady + coalesce + pace.Every).Seconds())
			for _, document := range []string{"api.md", "security.md"} {
				prose, err := os.ReadFile(filepath.Join("..", "docs", document))
				require.NoError(t, err)
				require.Contains(t, string(prose), bound, document)
			}
		})
	}
}

// notReadyWithin returns how long the kubelet may take to call a container that hangs
// not ready: it froze right after an answer, so the first failure begins a period
// later, the others a period apart, and the last one is over when its time is.
func notReadyWithin(probe *corev1.Probe) time.Duration {
	const defaultFailures, defaultSeconds = 3, 1 // of Kubernetes
	failures, seconds := probe.FailureThreshold, probe.TimeoutSeconds
	if failures == 0 {
		failures = defaultFailures
	}
	if seconds == 0 {
		seconds = defaultSeconds
	}
	return time.Duration(failures*probe.PeriodSeconds+seconds) * time.Second
}
