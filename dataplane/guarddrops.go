package dataplane

import (
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// guardDrops is the metric of packets that the pod-start guard dropped. The kernel counts
// them, and the sync loop reads the counters whenever it reads the tables in full: nobody
// who asks for the metrics makes the node run a program. It is safe for concurrent use.
type guardDrops struct {
	desc *prometheus.Desc

	mu     sync.Mutex
	counts map[ruleset.Family]uint64
}

func newGuardDrops() *guardDrops {
	return &guardDrops{
		desc: prometheus.NewDesc(prometheus.BuildFQName(metricNamespace, "", "guard_dropped_packets_total"),
			"Packets from and to addresses of the node's pods that no known pod has, which the pod-start guard dropped, as of the last full read of the kernel.", []string{"family"}, nil),
		counts: map[ruleset.Family]uint64{ruleset.IPv4: 0, ruleset.IPv6: 0},
	}
}

// read takes what the counters of a family's table show.
func (g *guardDrops) read(family ruleset.Family, packets uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.counts[family] = packets
}

// count returns the dropped packets of each family.
func (g *guardDrops) count() map[ruleset.Family]uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return maps.Clone(g.counts)
}

// Describe implements prometheus.Collector.
func (g *guardDrops) Describe(out chan<- *prometheus.Desc) { out <- g.desc }

// Collect implements prometheus.Collector.
func (g *guardDrops) Collect(out chan<- prometheus.Metric) {
	for family, count := range g.count() {
		out <- prometheus.MustNewConstMetric(g.desc, prometheus.CounterValue, float64(count), family.String())
	}
}
