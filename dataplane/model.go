package dataplane

import (
	"cmp"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/selector"
)

// model is what the agent has seen of the cluster. Informers write it, the sync
// loop reads it; it is safe for use by both at once.
type model struct {
	node    string
	changed chan struct{} // holds one signal: something may have changed

	mu        sync.Mutex
	addresses *selector.Addresses
	local     map[types.NamespacedName]*policy.Pod
	policies  map[types.NamespacedName]*policy.Policy
	index     *selector.Index

	// revision grows with every change that the rules depend on: a policy or a
	// pod of this node. Remote pods and namespaces change sets only.
	revision uint64

	event time.Time // when the first event came that takeEvent has not returned
}

func newModel(node string) *model {
	return &model{
		node:      node,
		changed:   make(chan struct{}, 1),
		addresses: selector.NewAddresses(),
		local:     map[types.NamespacedName]*policy.Pod{},
		policies:  map[types.NamespacedName]*policy.Policy{},
		index:     selector.NewIndex(),
		revision:  1,
	}
}

// change makes one change under the lock and signals it.
func (m *model) change(do func()) {
	m.mu.Lock()
	if m.event.IsZero() {
		m.event = time.Now()
	}
	do()
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// takeEvent returns when the first event came since it was asked last; zero if
// there was none.
func (m *model) takeEvent() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	event := m.event
	m.event = time.Time{}
	return event
}

func (m *model) setPod(object *corev1.Pod) {
	pod := policy.ParsePod(object)
	m.change(func() {
		for _, affected := range m.addresses.Set(pod) {
			m.place(affected)
		}
	})
}

func (m *model) deletePod(object *corev1.Pod) {
	key := types.NamespacedName{Namespace: object.Namespace, Name: object.Name}
	m.change(func() {
		affected := m.addresses.Delete(key)
		m.index.DeletePod(key)
		if _, local := m.local[key]; local {
			delete(m.local, key)
			m.revision++
		}
		for _, pod := range affected {
			m.place(pod)
		}
	})
}

// place puts a pod where it belongs, with the addresses that it owns.
func (m *model) place(pod *policy.Pod) {
	m.index.SetPod(m.addresses.Peer(pod))
	_, was := m.local[pod.Key()]
	if pod.Node == m.node {
		m.local[pod.Key()] = m.addresses.Subject(pod)
		m.revision++
	} else if was { // made again elsewhere under the same name
		delete(m.local, pod.Key())
		m.revision++
	}
}

func (m *model) setNamespace(object *corev1.Namespace) {
	m.change(func() { m.index.SetNamespace(object.Name, object.Labels) })
}

func (m *model) deleteNamespace(object *corev1.Namespace) {
	m.change(func() { m.index.DeleteNamespace(object.Name) })
}

func (m *model) setPolicy(object *networkingv1.NetworkPolicy) {
	p := policy.ParseNetworkPolicy(object)
	m.change(func() {
		m.policies[p.Key()] = p
		m.revision++
	})
}

func (m *model) deletePolicy(object *networkingv1.NetworkPolicy) {
	m.change(func() {
		delete(m.policies, types.NamespacedName{Namespace: object.Namespace, Name: object.Name})
		m.revision++
	})
}

// view is what the rules of this node depend on, at one revision.
type view struct {
	revision  uint64
	endpoints []policy.Endpoint
	selecting []*policy.Policy
}

// isolatedPods counts the isolated pods of each direction. There are none in a nil
// view.
func (v *view) isolatedPods() [policy.Directions]int {
	var pods [policy.Directions]int
	if v == nil {
		return pods
	}
	for i := range v.endpoints {
		for d := range pods {
			if v.endpoints[i].Isolated(policy.Direction(d)) {
				pods[d]++
			}
		}
	}
	return pods
}

// view returns the present view, or nil if nothing that it depends on has
// changed since the given revision.
func (m *model) view(since uint64) *view {
	m.mu.Lock()
	if m.revision == since {
		m.mu.Unlock()
		return nil
	}
	v := &view{revision: m.revision}
	local, policies := values(m.local), values(m.policies)
	m.mu.Unlock()

	// Pods and policies are immutable, so the rest needs no lock.
	slices.SortFunc(policies, func(a, b *policy.Policy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	v.endpoints = policy.Endpoints(local, policies)
	v.selecting = policy.Selecting(local, policies)
	return v
}

func values[K comparable, V any](m map[K]V) []V {
	list := make([]V, 0, len(m))
	for _, value := range m {
		list = append(list, value)
	}
	return list
}
