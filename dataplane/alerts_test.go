package dataplane

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/controllers/absence"
	"github.com/moat-dev/moat/dataplane/lastword"
	"github.com/moat-dev/moat/dataplane/watch"
)

// metricLabels returns the labels of each metric of agent and operator by the metric's name,
// as Prometheus describes them.
func metricLabels(t *testing.T) map[string]string {
	t.Helper()
	descriptions := make(chan *prometheus.Desc, 100)
	newMetrics().Describe(descriptions)
	watch.NewAges(lastword.New()).Describe(descriptions)
	for _, collector := range absence.Metrics() { // the operator's
		collector.Describe(descriptions)
	}
	close(descriptions)
	labels := map[string]string{}
	for description := range descriptions {
		match := regexp.MustCompile(`fqName: "([^"]*)".*variableLabels: \{(.*)\}`).FindStringSubmatch(description.String())
		require.NotNil(t, match, "prometheus prints descriptions in another way: %s", description)
		labels[match[1]] = match[2]
	}
	return labels
}

// Each metric has a row in docs/operations.md, and each row a metric.
func TestEveryMetricHasARow(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "docs", "operations.md"))
	require.NoError(t, err)
	explained := map[string]bool{}
	for _, cell := range regexp.MustCompile(`(?m)^\| [^|]*`).FindAllString(string(text), -1) {
		for _, name := range regexp.MustCompile(`moat_[a-z_]+`).FindAllString(cell, -1) {
			explained[name] = true
		}
	}
	labels := metricLabels(t)
	require.GreaterOrEqual(t, len(labels), 20)
	for name := range labels {
		require.Contains(t, explained, name, "a metric without a row")
	}
	for name := range explained {
		require.Contains(t, labels, name, "a row without a metric")
	}
}

// An alert on a metric that doesn't exist is silent for ever.
func TestAlertsNameMetricsThatExist(t *testing.T) {
	labels := metricLabels(t)
	rules, err := os.ReadFile(filepath.Join("..", "config", "prometheus", "rules.yaml"))
	require.NoError(t, err)
	uses := regexp.MustCompile(`(moat_[a-z_]+)(?:\{([a-z]+)=)?`).FindAllStringSubmatch(string(rules), -1)
	require.NotEmpty(t, uses)
	for _, use := range uses {
		name := strings.TrimSuffix(use[1], "_bucket")
		require.Contains(t, labels, name)
		if use[2] != "" {
			require.Contains(t, labels[name], use[2], "label of %s", name)
		}
	}
}
