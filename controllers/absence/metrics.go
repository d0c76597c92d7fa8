package absence

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
)

// The metrics of the operator that leads; the others say 0.
var (
	absentNodes = gauge("nodes_without_agent",
		"Nodes that the agents' DaemonSet wants, that are Ready themselves, and that have had no Ready agent for a minute.")
	taintedNodes = gauge("nodes_without_agent_tainted",
		"Nodes whose guard closes new pods, that have no Ready agent and are tainted, so that they take no new pods.")
	sparedNodes = gauge("nodes_without_agent_over_bound",
		"Nodes whose guard closes new pods, that have had no Ready agent for a minute and are not tainted, since too many nodes are: new pods there have no network.")
)

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "moat", Name: name, Help: help})
}

// Metrics returns the collectors of this package.
func Metrics() []prometheus.Collector {
	return []prometheus.Collector{absentNodes, taintedNodes, sparedNodes}
}

// registerMetrics may be called again by a second manager of the process.
func registerMetrics() error {
	for _, collector := range Metrics() {
		var already prometheus.AlreadyRegisteredError
		if err := ctrlmetrics.Registry.Register(collector); err != nil && !errors.As(err, &already) {
			return fmt.Errorf("registering the metrics: %w", err)
		}
	}
	return nil
}

func setCounts(c counts) {
	absentNodes.Set(float64(c.absent))
	taintedNodes.Set(float64(c.tainted))
	sparedNodes.Set(float64(c.spared))
}
