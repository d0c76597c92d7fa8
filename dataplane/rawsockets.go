package dataplane

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/moat-dev/moat/dataplane/policy"
)

// withRawSockets returns the pods of this node that may forge packets.
func (m *model) withRawSockets() []*policy.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	var pods []*policy.Pod
	for _, pod := range m.local {
		if pod.RawSockets {
			pods = append(pods, pod)
		}
	}
	return pods
}

// rawSocketPods is the metric of pods that may forge packets, in namespaces in which a policy
// isolates a pod of this node. Its labels name pods, of this node alone: a node runs some
// hundred at most. It is safe for concurrent use.
type rawSocketPods struct {
	desc *prometheus.Desc

	mu       sync.Mutex
	pods     func() []*policy.Pod // those that may; nil: none
	isolated map[string]bool      // the namespaces
}

func newRawSocketPods() *rawSocketPods {
	return &rawSocketPods{desc: prometheus.NewDesc(prometheus.BuildFQName(metricNamespace, "", "raw_socket_pod"),
		"1 for each pod of this node that may hold CAP_NET_RAW, and so forge packets, in a namespace in which a policy isolates a pod of this node.",
		[]string{"namespace", "pod"}, nil)}
}

// ask takes what knows the pods.
func (r *rawSocketPods) ask(pods func() []*policy.Pod) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pods = pods
}

// follow takes the pods that policies isolate.
func (r *rawSocketPods) follow(endpoints []policy.Endpoint) {
	isolated := map[string]bool{}
	for i := range endpoints {
		isolated[endpoints[i].Pod.Namespace] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isolated = isolated
}

// Describe implements prometheus.Collector.
func (r *rawSocketPods) Describe(out chan<- *prometheus.Desc) { out <- r.desc }

// Collect implements prometheus.Collector.
func (r *rawSocketPods) Collect(out chan<- prometheus.Metric) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pods == nil {
		return
	}
	for _, pod := range r.pods() {
		if r.isolated[pod.Namespace] {
			out <- prometheus.MustNewConstMetric(r.desc, prometheus.GaugeValue, 1, pod.Namespace, pod.Name)
		}
	}
}
