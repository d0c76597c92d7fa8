package charts_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// umbrella returns a chart, built by Helm, that has Moat as a dependency as platforms do.
func umbrella(t *testing.T) string {
	t.Helper()
	helmPath(t)
	folder := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(folder, "moat"), os.DirFS(chart)))
	require.NoError(t, os.CopyFS(filepath.Join(folder, "umbrella"), os.DirFS(filepath.Join("testdata", "umbrella"))))
	_, err := helm(t, "dependency", "build", filepath.Join(folder, "umbrella"))
	require.NoError(t, err)
	return filepath.Join(folder, "umbrella")
}

func TestMoatIsADependencyOfAnotherChart(t *testing.T) {
	platform := umbrella(t)
	render := func(args ...string) map[string]object {
		out, err := helm(t, append([]string{"template", "platform", platform, "--namespace", namespace}, args...)...)
		require.NoError(t, err)
		return objectsOf(t, out)
	}
	objects := render()
	require.Contains(t, objects, "ConfigMap/platform")
	operator, agent := operatorOf(t, objects), agentOf(t, objects)
	w := workloads{operator, agent, objects}
	for _, pod := range w.pods() {
		require.Equal(t, "registry.example.com:5000/mirror/moat-dev/moat:"+appVersion(t), pod.Containers[0].Image)
		require.Equal(t, []corev1.LocalObjectReference{{Name: "of-moat"}, {Name: "of-all"}, {Name: "of-all-too"}}, pod.ImagePullSecrets)
	}
	require.EqualValues(t, 1, *operator.Spec.Replicas, "its own values go by its name")
	require.Equal(t, "platform", agent.Labels["app.kubernetes.io/instance"])
	for key, object := range objects {
		if key != "ConfigMap/platform" {
			require.Equal(t, "moat-"+chartVersion(t), labelsOf(t, object)["helm.sh/chart"], "not the parent's: %s", key)
		}
	}

	off := render("--set", "moat.enabled=false")
	require.Contains(t, off, "ConfigMap/platform")
	require.Len(t, off, 1, "the condition switches all of Moat off")
}

func TestGlobalRegistry(t *testing.T) {
	for _, test := range []struct{ registry, repository, want string }{
		{"example.com", "ghcr.io/moat-dev/moat", "example.com/moat-dev/moat:dev"},
		{"example.com/mirror/", "ghcr.io/moat-dev/moat", "example.com/mirror/moat-dev/moat:dev"},
		{"example.com", "localhost/moat", "example.com/moat:dev"},
		{"example.com", "registry:5000/moat", "example.com/moat:dev"},
		{"example.com", "moat-dev/moat", "example.com/moat-dev/moat:dev"},
		{"example.com", "moat", "example.com/moat:dev"},
		{"", "ghcr.io/moat-dev/moat", "ghcr.io/moat-dev/moat:dev"},
	} {
		objects := render(t, "--set", "image.tag=dev,global.imageRegistry="+test.registry+",image.repository="+test.repository)
		require.Equal(t, test.want, operatorOf(t, objects).Spec.Template.Spec.Containers[0].Image, "%+v", test)
	}
	for _, set := range []string{`global={"imageRegistry":null,"imagePullSecrets":null,"storageClass":"fast"}`, `global={}`} {
		require.Equal(t, "ghcr.io/moat-dev/moat:"+appVersion(t), agentOf(t, render(t, "--set-json", set)).Spec.Template.Spec.Containers[0].Image, set)
	}
}

// Each way to name pull secrets is taken, and each secret once.
func TestPullSecretsComeFromEverywhere(t *testing.T) {
	pod := agentOf(t, render(t, "--set-json",
		`image.pullSecrets=["a",{"name":"b"}],imagePullSecrets=[{"name":"c"},"a"],global.imagePullSecrets=["d",{"name":"b"}]`)).Spec.Template.Spec
	require.Equal(t, []corev1.LocalObjectReference{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}}, pod.ImagePullSecrets)
}

// aboutChart returns the versions of Chart.yaml.
func aboutChart(t *testing.T) (version, app string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(chart, "Chart.yaml"))
	require.NoError(t, err)
	var about struct{ Version, AppVersion string }
	require.NoError(t, yaml.Unmarshal(text, &about))
	return about.Version, about.AppVersion
}

func chartVersion(t *testing.T) string { version, _ := aboutChart(t); return version }
func appVersion(t *testing.T) string   { _, app := aboutChart(t); return app }
