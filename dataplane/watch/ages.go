package watch

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/moat-dev/moat/dataplane/lastword"
	"github.com/moat-dev/moat/dataplane/metrics"
)

// newInformer returns what makes informers whose watches note in words what they hear.
func newInformer(words *lastword.Words) func(toolscache.ListerWatcher, runtime.Object, time.Duration, toolscache.Indexers) toolscache.SharedIndexInformer {
	return func(source toolscache.ListerWatcher, of runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
		return toolscache.NewSharedIndexInformer(words.Listen(resourceOf(of), source), of, resync, indexers)
	}
}

// resourceOf names a watch for people and for metrics.
func resourceOf(object runtime.Object) string {
	switch object.(type) {
	case *SlimPod:
		return "pods"
	case *corev1.Namespace:
		return "namespaces"
	case *networkingv1.NetworkPolicy:
		return "networkpolicies"
	case *corev1.Node:
		return "nodes"
	}
	return "others"
}

// Ages tells Prometheus the age of each watch's last word, as it is when it asks.
type Ages struct {
	words *lastword.Words
	desc  *prometheus.Desc
}

// NewAges returns the collector of the ages of what the watches heard last.
func NewAges(words *lastword.Words) *Ages {
	return &Ages{words: words, desc: prometheus.NewDesc(
		prometheus.BuildFQName(metrics.Namespace, "", "watch_age_seconds"),
		"How long ago the API server said something to the agent's watch of a resource: an event, or a bookmark, which comes each minute. From 180 on the agent isn't Ready.",
		[]string{"resource"}, nil,
	)}
}

// Describe implements prometheus.Collector.
func (w *Ages) Describe(out chan<- *prometheus.Desc) { out <- w.desc }

// Collect implements prometheus.Collector.
func (w *Ages) Collect(out chan<- prometheus.Metric) {
	for _, age := range w.words.Ages() {
		out <- prometheus.MustNewConstMetric(w.desc, prometheus.GaugeValue, age.Age.Seconds(), age.Resource)
	}
}
