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

	"github.com/moat-dev/moat/dataplane/lastword"
)

// fallsWithin is how long the operator takes until a status says what an agent's pod says:
// TestEnforcedFallsAtOnce.
const fallsWithin = 100 * time.Millisecond

// How long Enforced can stay True after an agent froze follows from the readiness probe
// and from what the operator takes. The documents name the sum, and what it is for an agent
// that is cut off.
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
			frozen := fmt.Sprintf("%g s", (notReady + fallsWithin).Seconds())
			cutOff := fmt.Sprintf("%g s", (lastword.CutOffAfter + notReady + fallsWithin).Seconds())
			for _, document := range []string{"api.md", "security.md"} {
				prose, err := os.ReadFile(filepath.Join("..", "docs", document))
				require.NoError(t, err)
				require.Contains(t, string(prose), frozen, document)
				require.Contains(t, string(prose), cutOff, document)
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
