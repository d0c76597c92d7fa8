package charts_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// monitored has everything of Prometheus switched on.
var monitored = []string{"--set", "monitoring.podMonitor.enabled=true,monitoring.prometheusRule.enabled=true"}

func TestPodMonitorsAreThoseOfConfig(t *testing.T) {
	objects := render(t, monitored...)
	text, err := os.ReadFile(filepath.Join("..", "config", "prometheus", "monitors.yaml"))
	require.NoError(t, err)
	monitors := strings.Split(string(text), "\n---\n")
	require.Len(t, monitors, 2)
	for _, monitor := range monitors {
		var generated map[string]any
		require.NoError(t, yaml.Unmarshal([]byte(monitor), &generated))
		name := generated["metadata"].(map[string]any)["name"].(string)
		require.Equal(t, generated["spec"], decode[map[string]any](t, objects, "PodMonitor/"+name)["spec"])
	}
}

func TestPodMonitorsFindTheirPods(t *testing.T) {
	objects := render(t, monitored...)
	type monitor struct {
		Spec struct {
			Selector            struct{ MatchLabels map[string]string }
			PodMetricsEndpoints []struct{ Port string }
		}
	}
	operator, agent := operatorOf(t, objects), agentOf(t, objects)
	for name, template := range map[string]struct {
		labels map[string]string
		port   string
	}{
		"operator": {operator.Spec.Template.Labels, operator.Spec.Template.Spec.Containers[0].Ports[0].Name},
		"agent":    {agent.Spec.Template.Labels, agent.Spec.Template.Spec.Containers[0].Ports[0].Name},
	} {
		var found monitor
		require.NoError(t, yaml.Unmarshal([]byte(objects["PodMonitor/moat-"+name].text), &found))
		require.NotEmpty(t, found.Spec.Selector.MatchLabels)
		require.Subset(t, template.labels, found.Spec.Selector.MatchLabels)
		require.Equal(t, template.port, found.Spec.PodMetricsEndpoints[0].Port)
	}
}

// The jobs are called after the PodMonitors and the namespace that these are in.
func TestAlertsNameTheJobsOfTheNamespace(t *testing.T) {
	elsewhere := render(t, append(monitored, "--namespace", "elsewhere")...)["PrometheusRule/moat"].text
	jobs := map[string]bool{}
	for _, match := range regexp.MustCompile(`job="([^"]*)"`).FindAllStringSubmatch(elsewhere, -1) {
		jobs[match[1]] = true
	}
	require.Equal(t, map[string]bool{"elsewhere/moat-agent": true, "elsewhere/moat-operator": true}, jobs)
	require.NotContains(t, elsewhere, "moat-system")
}

type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

func alertsOf(t *testing.T, read func(into any)) []alert {
	t.Helper()
	var rule struct {
		Spec struct {
			Groups []struct{ Rules []alert }
		}
	}
	read(&rule)
	require.Len(t, rule.Spec.Groups, 1)
	return rule.Spec.Groups[0].Rules
}

func TestAlertsAreThoseOfConfig(t *testing.T) {
	text := render(t, monitored...)["PrometheusRule/moat"].text
	rendered := alertsOf(t, func(into any) { require.NoError(t, yaml.Unmarshal([]byte(text), into)) })
	generated := alertsOf(t, func(into any) { readYAML(t, filepath.Join("..", "config", "prometheus", "rules.yaml"), into) })
	require.NotEmpty(t, generated)
	require.Equal(t, generated, rendered)
}

// Whoever is woken by an alert finds what to do under its name.
func TestEachAlertHasARunbook(t *testing.T) {
	operations, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	require.NoError(t, err)
	seen := map[string]bool{}
	for _, a := range alertsOf(t, func(into any) { readYAML(t, filepath.Join("..", "config", "prometheus", "rules.yaml"), into) }) {
		require.Regexp(t, `^Moat[A-Za-z]+$`, a.Alert)
		require.False(t, seen[a.Alert], "%s is there twice", a.Alert)
		seen[a.Alert] = true
		require.NotEmpty(t, a.Expr, a.Alert)
		require.Contains(t, []string{"warning", "critical"}, a.Labels["severity"], a.Alert)
		require.NotEmpty(t, a.Annotations["summary"], a.Alert)
		require.NotEmpty(t, a.Annotations["description"], a.Alert)
		require.Equal(t, "https://github.com/moat-dev/moat/blob/main/docs/operations.md#"+strings.ToLower(a.Alert), a.Annotations["runbook_url"])
		require.Regexp(t, `(?m)^#+ `+a.Alert+`$`, string(operations), "docs/operations.md has no heading for %s", a.Alert)
	}
}
