package metrics

import (
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// packetCounts is a metric of packets that the rules of one chain counted. The kernel counts
// them, and the sync loop reads the counters whenever it reads the tables in full. So a scrape of
// the metrics never runs a program. It is safe for concurrent use.
type packetCounts struct {
	desc *prometheus.Desc

	mu     sync.Mutex
	counts map[string]uint64
}

func newPacketCounts(name, help string) *packetCounts {
	return &packetCounts{
		desc:   prometheus.NewDesc(prometheus.BuildFQName(Namespace, "", name), help, []string{"family"}, nil),
		counts: map[string]uint64{},
	}
}

func newGuardDrops() *packetCounts {
	return newPacketCounts("guard_dropped_packets_total",
		"Packets from and to addresses of the node's pods that no known pod has, which the pod-start guard dropped, as of the last full read of the kernel.")
}

func newSpoofedPackets() *packetCounts {
	return newPacketCounts("spoofed_packets_total",
		"Packets that pods of this node sent with a source address that isn't theirs, as of the last full read of the kernel.")
}

// read takes what the counters of a family's table show.
func (p *packetCounts) read(family string, packets uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[family] = packets
}

// count returns the packets of each family.
func (p *packetCounts) count() map[string]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.counts)
}

// Describe implements prometheus.Collector.
func (p *packetCounts) Describe(out chan<- *prometheus.Desc) { out <- p.desc }

// Collect implements prometheus.Collector.
func (p *packetCounts) Collect(out chan<- prometheus.Metric) {
	for family, count := range p.count() {
		out <- prometheus.MustNewConstMetric(p.desc, prometheus.CounterValue, float64(count), family)
	}
}
