package cluster

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// agentMetrics is where an agent serves its metrics by default, on its node.
const agentMetrics = "127.0.0.1:9470"

// scrapeTimeout is that of Prometheus.
const scrapeTimeout = 10 * time.Second

// Metrics are the values of series, each by its name with its labels as they are
// printed: moat_ipset_sets{family="IPv4"}.
type Metrics map[string]float64

// Metrics asks the node's agent.
func (n *Node) Metrics(t testing.TB) Metrics {
	t.Helper()
	body, err := n.get("http://"+agentMetrics+"/metrics", scrapeTimeout)
	require.NoError(t, err)
	return parseMetrics(t, body)
}

func parseMetrics(t testing.TB, body []byte) Metrics {
	t.Helper()
	metrics := Metrics{}
	for line := range strings.Lines(string(body)) {
		line = strings.TrimSpace(line)
		space := strings.LastIndexByte(line, ' ')
		if space < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(line[space+1:], 64)
		require.NoError(t, err, line)
		metrics[line[:space]] = value
	}
	return metrics
}

// Sum adds up the series of one name.
func (m Metrics) Sum(name string) float64 {
	sum := m[name]
	for series, value := range m {
		if strings.HasPrefix(series, name+"{") {
			sum += value
		}
	}
	return sum
}
