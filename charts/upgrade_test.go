package charts_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// previous are the charts that were released. `make demo` upgrades from the last one.
var previous = filepath.Join("..", "hack", "demo", "previous")

func TestAnUpgradeFromEachPreviousVersionIsPossible(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(previous, "moat-*.tgz"))
	require.NoError(t, err)
	require.Len(t, files, 2)
	for _, file := range files {
		version := strings.TrimSuffix(filepath.Base(file), ".tgz")
		t.Run(version, func(t *testing.T) {
			out, err := helm(t, "template", "moat", file, "--namespace", namespace)
			require.NoError(t, err)
			before, now := objectsOf(t, out), render(t)
			require.Equal(t, version, labelsOf(t, before["DaemonSet/moat-agent"])["helm.sh/chart"])
			require.NotEqual(t, version, labelsOf(t, now["DaemonSet/moat-agent"])["helm.sh/chart"], "the chart has no new version")
			requireUpgradable(t, before, now)
		})
	}
	upgrade, err := os.ReadFile(filepath.Join("..", "hack", "demo", "upgrade.go"))
	require.NoError(t, err)
	require.Contains(t, string(upgrade), filepath.Base(files[len(files)-1]), "make demo upgrades from the last one")
}

// What the users of 0.2.0 set still works. What became of uninstall is tested there.
func TestValuesOfThePreviousVersionStillWork(t *testing.T) {
	out, err := helm(t, "show", "values", filepath.Join(previous, "moat-0.2.0.tgz"))
	require.NoError(t, err)
	var all map[string]any
	require.NoError(t, yaml.Unmarshal([]byte(out), &all))
	delete(all, "uninstall")
	text, err := yaml.Marshal(all)
	require.NoError(t, err)
	values := filepath.Join(t.TempDir(), "values.yaml")
	require.NoError(t, os.WriteFile(values, text, 0o600))
	agent := agentOf(t, render(t, "--values", values))
	require.Equal(t, "10%", agent.Spec.UpdateStrategy.RollingUpdate.MaxUnavailable.String(), "as agent.maxUnavailable says")
	require.Equal(t, "linux", agent.Spec.Template.Spec.NodeSelector["kubernetes.io/os"])
}

// An image that is older than the chart still starts its agents: the chart gives them no
// flag that the older one didn't know, unless a value asks for it.
func TestAgentsOfThePreviousVersionTakeTheArguments(t *testing.T) {
	out, err := helm(t, "template", "moat", filepath.Join(previous, "moat-0.2.0.tgz"), "--namespace", namespace)
	require.NoError(t, err)
	require.Subset(t, flagNames(agentOf(t, objectsOf(t, out))), flagNames(agentOf(t, render(t))))
}

func flagNames(agent appsv1.DaemonSet) (names []string) {
	for _, arg := range agent.Spec.Template.Spec.Containers[0].Args {
		name, _, _ := strings.Cut(arg, "=")
		names = append(names, name)
	}
	return names
}

// requireUpgradable refuses an upgrade that changes what Kubernetes lets nobody change,
// which fails half-way, and one that drops a version of a CRD, which makes stored objects
// unreadable.
func requireUpgradable(t *testing.T, before, now map[string]object) {
	t.Helper()
	require.Equal(t, operatorOf(t, before).Spec.Selector, operatorOf(t, now).Spec.Selector)
	require.Equal(t, agentOf(t, before).Spec.Selector, agentOf(t, now).Spec.Selector)
	for key := range before {
		if strings.HasSuffix(key, "/moat-uninstall") { // hooks until 0.3.0, which Helm deletes itself
			continue
		}
		require.Contains(t, now, key, "an upgrade would remove it")
		switch kind, _, _ := strings.Cut(key, "/"); kind {
		case "ClusterRoleBinding":
			require.Equal(t, decode[rbacv1.ClusterRoleBinding](t, before, key).RoleRef, decode[rbacv1.ClusterRoleBinding](t, now, key).RoleRef)
		case "RoleBinding":
			require.Equal(t, decode[rbacv1.RoleBinding](t, before, key).RoleRef, decode[rbacv1.RoleBinding](t, now, key).RoleRef)
		case "CustomResourceDefinition":
			requireSameVersions(t, decode[apiextensionsv1.CustomResourceDefinition](t, before, key), decode[apiextensionsv1.CustomResourceDefinition](t, now, key))
		}
	}
}

func requireSameVersions(t *testing.T, before, now apiextensionsv1.CustomResourceDefinition) {
	t.Helper()
	require.Equal(t, before.Spec.Names.Plural, now.Spec.Names.Plural)
	require.Equal(t, before.Spec.Scope, now.Spec.Scope)
	served := map[string]bool{}
	for _, version := range now.Spec.Versions {
		served[version.Name] = version.Served
	}
	for _, version := range before.Spec.Versions {
		require.True(t, served[version.Name], "%s %s", now.Name, version.Name)
	}
}
