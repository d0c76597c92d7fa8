package dataplane

import (
	"context"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// guardDrops is the metric of packets that the pod-start guard dropped. The kernel
// counts them, and is asked when somebody wants to know. It is safe for concurrent
// use.
type guardDrops struct {
	desc *prometheus.Desc

	mu      sync.Mutex
	runners map[ruleset.Family]*iptables.Runner // nil while there is no guard
}

func newGuardDrops() *guardDrops {
	return &guardDrops{desc: prometheus.NewDesc(prometheus.BuildFQName(metricNamespace, "", "guard_dropped_packets_total"),
		"Packets from and to addresses of the node's pods that no known pod has, which the pod-start guard dropped.", []string{"family"}, nil)}
}

// follow takes the runners that the guard was written with; nil where it wasn't.
func (g *guardDrops) follow(runners map[ruleset.Family]*iptables.Runner) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.runners = runners
}

// count returns the dropped packets of each family whose table can be read.
func (g *guardDrops) count(ctx context.Context) map[ruleset.Family]uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	counts := map[ruleset.Family]uint64{}
	for _, family := range ruleset.Families() {
		if g.runners[family] == nil {
			counts[family] = 0
			continue
		}
		if count, err := g.runners[family].Drops(ctx, compile.GuardChain); err == nil {
			counts[family] = count
		}
	}
	return counts
}

// Describe implements prometheus.Collector.
func (g *guardDrops) Describe(out chan<- *prometheus.Desc) { out <- g.desc }

// Collect implements prometheus.Collector.
func (g *guardDrops) Collect(out chan<- prometheus.Metric) {
	for family, count := range g.count(context.Background()) {
		out <- prometheus.MustNewConstMetric(g.desc, prometheus.CounterValue, float64(count), family.String())
	}
}
