package charts_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// templates are what replaces the pods if it changes.
func templates(t *testing.T, objects map[string]object) []corev1.PodTemplateSpec {
	t.Helper()
	return []corev1.PodTemplateSpec{operatorOf(t, objects).Spec.Template, agentOf(t, objects).Spec.Template}
}

// A newer chart with the same image replaces no pod.
func TestANewChartAloneReplacesNoPod(t *testing.T) {
	folder := filepath.Join(t.TempDir(), "moat")
	require.NoError(t, os.CopyFS(folder, os.DirFS(chart)))
	about, err := os.ReadFile(filepath.Join(folder, "Chart.yaml"))
	require.NoError(t, err)
	version, app := aboutChart(t)
	newer := bytes.Replace(about, []byte("version: "+version), []byte("version: 99.0.0"), 1)
	newer = bytes.Replace(newer, []byte("appVersion: "+app), []byte("appVersion: v99.0.0"), 1)
	require.NoError(t, os.WriteFile(filepath.Join(folder, "Chart.yaml"), newer, 0o644))

	out, err := helm(t, "template", "moat", folder, "--namespace", namespace, "--set", "image.tag=same")
	require.NoError(t, err)
	after, before := objectsOf(t, out), render(t, "--set", "image.tag=same")
	require.Equal(t, "moat-99.0.0", labelsOf(t, after["DaemonSet/moat-agent"])["helm.sh/chart"])
	require.Equal(t, "v99.0.0", labelsOf(t, after["DaemonSet/moat-agent"])["app.kubernetes.io/version"])
	require.Equal(t, templates(t, before), templates(t, after))
}

// A rollout starts with one node, and is made faster without being started again: what
// docs/operations.md tells to do in the middle of it.
func TestTheRolloutStartsWithOneNodeAndCanBeMadeFaster(t *testing.T) {
	first, faster := agentOf(t, render(t)), agentOf(t, render(t, "--set", "agent.updateStrategy.rollingUpdate.maxUnavailable=5%"))
	require.Equal(t, appsv1.RollingUpdateDaemonSetStrategyType, first.Spec.UpdateStrategy.Type)
	require.Equal(t, 1, first.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.IntValue())
	require.Nil(t, first.Spec.UpdateStrategy.RollingUpdate.MaxSurge, "two agents can't run on one node")
	require.Equal(t, first.Spec.Template, faster.Spec.Template)
	require.Positive(t, first.Spec.MinReadySeconds, "one that crashes at once doesn't count")

	// What it was called before 0.3.0, so that the values of an older release still work.
	older := agentOf(t, render(t, "--set", "agent.maxUnavailable=20%"))
	require.Equal(t, "20%", older.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String())
}

// Each program learns of the limit that its container has, by the field that knows it.
func TestProgramsKnowTheirMemoryLimit(t *testing.T) {
	for _, template := range append(templates(t, render(t)), templates(t, kustomize(t, "default"))...) {
		container := template.Spec.Containers[0]
		require.Equal(t, resource.MustParse("512Mi"), container.Resources.Limits[corev1.ResourceMemory])
		require.Contains(t, container.Env, corev1.EnvVar{Name: "MEMORY_LIMIT", ValueFrom: &corev1.EnvVarSource{
			ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory"},
		}})
	}
}
