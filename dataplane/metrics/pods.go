package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// rawSocketPods is the metric of pods that may forge packets. Its labels name pods of this node
// alone, which are a few hundred at most. It is safe for concurrent use.
type rawSocketPods struct {
	desc *prometheus.Desc

	mu   sync.Mutex
	pods func() []Pod // nil: none
}

func newRawSocketPods() *rawSocketPods {
	return &rawSocketPods{desc: prometheus.NewDesc(prometheus.BuildFQName(Namespace, "", "raw_socket_pod"),
		"1 for each pod of this node that may hold CAP_NET_RAW, and so forge packets, in a namespace in which a policy isolates a pod of this node.",
		[]string{"namespace", "pod"}, nil)}
}

// ask takes the function that returns the pods.
func (r *rawSocketPods) ask(pods func() []Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods = pods
}

// Describe implements prometheus.Collector.
func (r *rawSocketPods) Describe(out chan<- *prometheus.Desc) { out <- r.desc }

// Collect implements prometheus.Collector.
func (r *rawSocketPods) Collect(out chan<- prometheus.Metric) {
	r.mu.Lock()
	pods := r.pods
	r.mu.Unlock()
	if pods == nil {
		return
	}
	for _, pod := range pods() {
		out <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, 1, pod.Namespace, pod.Name)
	}
}

// podGauge is a metric that is 1 for each pod of a list. Only one goroutine sets it.
type podGauge struct {
	*prometheus.GaugeVec
	shown map[Pod]bool
}

func newSpoofingPods() podGauge {
	return podGauge{GaugeVec: prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Namespace: Namespace, Name: "spoofing_pod",
		Help: "1 for each running pod of this node that was seen to send packets with a source address that isn't its own.",
	}, []string{"namespace", "pod"})}
}

// show makes the metric have exactly these pods.
func (g *podGauge) show(pods []Pod) {
	now := map[Pod]bool{}
	for _, pod := range pods {
		now[pod] = true
		g.WithLabelValues(pod.Namespace, pod.Name).Set(1)
	}
	for pod := range g.shown {
		if !now[pod] {
			g.DeleteLabelValues(pod.Namespace, pod.Name)
		}
	}
	g.shown = now
}
