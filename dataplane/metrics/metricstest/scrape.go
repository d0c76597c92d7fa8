package metricstest

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/metrics"
)

// Scrape returns the series of metrics by name and label value, those of
// histograms as their counts.
func Scrape(t *testing.T, m *metrics.Metrics) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(m)
	families, err := registry.Gather()
	require.NoError(t, err)
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	require.NoError(t, err)
	require.Empty(t, problems)
	series := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.Metric {
			name := strings.TrimPrefix(family.GetName(), "moat_")
			for _, label := range metric.Label {
				name += " " + label.GetValue()
			}
			series[name] = valueOf(metric)
		}
	}
	return series
}

func valueOf(metric *dto.Metric) float64 {
	if metric.Histogram != nil {
		return float64(metric.Histogram.GetSampleCount())
	}
	return metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
}
