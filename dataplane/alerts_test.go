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
)

// An alert on a metric that doesn't exist is silent for ever.
func TestAlertsNameMetricsThatExist(t *testing.T) {
	descriptions := make(chan *prometheus.Desc, 100)
	newMetrics().Describe(descriptions)
	newWordAges(lastword.New()).Describe(descriptions)
	for _, collector := range absence.Metrics() { // the operator's
		collector.Describe(descriptions)
	}
	close(descriptions)
	labels := map[string]string{} // of each metric, as Desc prints them
	for description := range descriptions {
		match := regexp.MustCompile(`fqName: "([^"]*)".*variableLabels: \{(.*)\}`).FindStringSubmatch(description.String())
		require.NotNil(t, match, "prometheus prints descriptions in another way: %s", description)
		labels[match[1]] = match[2]
	}

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
