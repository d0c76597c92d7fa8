package dataplane

import (
	"sync"

	"github.com/moat-dev/moat/dataplane/metrics"
	"github.com/moat-dev/moat/dataplane/policy"
)

// rawSockets says which pods may forge packets, in namespaces in which a policy isolates a pod
// of this node. It is safe for concurrent use.
type rawSockets struct {
	pods func() []*policy.Pod // those that may forge packets

	mu       sync.Mutex
	isolated map[string]bool // the namespaces
}

// follow takes the pods that policies isolate.
func (r *rawSockets) follow(endpoints []policy.Endpoint) {
	isolated := map[string]bool{}
	for i := range endpoints {
		isolated[endpoints[i].Pod.Namespace] = true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.isolated = isolated
}

// names returns the pods as metrics names them.
func (r *rawSockets) names() []metrics.Pod {
	pods := r.pods()
	r.mu.Lock()
	defer r.mu.Unlock()
	var names []metrics.Pod
	for _, pod := range pods {
		if r.isolated[pod.Namespace] {
			names = append(names, metrics.Pod{Namespace: pod.Namespace, Name: pod.Name})
		}
	}
	return names
}
