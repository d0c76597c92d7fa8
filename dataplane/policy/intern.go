package policy

import (
	"hash/maphash"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/labels"
)

// Interner lets equal values share their memory: of 100,000 pods, most have the same labels,
// ports, node and namespace as many more. It remembers recent values and forgets the rest, so
// that it keeps nothing alive for long. It is safe for concurrent use.
type Interner struct {
	mu        sync.Mutex
	texts     cache[string]
	sets      cache[labels.Set]
	ports     cache[[]NamedPort]
	selectors cache[labels.Selector]
}

// NewInterner returns an Interner that remembers nothing yet.
func NewInterner() *Interner { return &Interner{} }

// Pod makes a pod share what it can. The pod must not be in use yet; it is
// returned.
func (in *Interner) Pod(p *Pod) *Pod {
	in.mu.Lock()
	defer in.mu.Unlock()
	p.Namespace, p.Node = in.text(p.Namespace), in.text(p.Node)
	p.Labels = in.labels(p.Labels)
	p.Addrs, p.NodeAddrs = slices.Clone(p.Addrs), slices.Clone(p.NodeAddrs) // without what append left free
	if p.Ports != nil {
		p.Ports = in.ports.share(hashPorts(p.Ports), p.Ports, slices.Equal[[]NamedPort], in.keepPorts)
	}
	return p
}

func (in *Interner) keepPorts(ports []NamedPort) []NamedPort {
	for i := range ports {
		ports[i].Name = in.text(ports[i].Name)
	}
	return slices.Clone(ports) // without what append left free
}

// Policy makes a policy share what it can. The policy must not be in use yet; it is
// returned.
func (in *Interner) Policy(p *Policy) *Policy {
	in.mu.Lock()
	defer in.mu.Unlock()
	p.Namespace, p.Selector = in.text(p.Namespace), in.selector(p.Selector)
	for d := range p.Rules {
		for i := range p.Rules[d] {
			for _, peer := range p.Rules[d][i].Peers {
				if peer.Pods == nil {
					continue
				}
				peer.Pods.Namespace = in.text(peer.Pods.Namespace)
				peer.Pods.Namespaces, peer.Pods.Pods = in.selector(peer.Pods.Namespaces), in.selector(peer.Pods.Pods)
			}
		}
	}
	return p
}

// Labels returns a label set that is equal and perhaps shared.
func (in *Interner) Labels(set labels.Set) labels.Set {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.labels(set)
}

func (in *Interner) text(text string) string {
	return in.texts.share(maphash.String(hashSeed, text), text, func(a, b string) bool { return a == b }, nil)
}

func (in *Interner) labels(set labels.Set) labels.Set {
	if set == nil {
		return nil
	}
	return in.sets.share(HashLabels(set), set, maps.Equal[labels.Set, labels.Set], func(set labels.Set) labels.Set {
		shared := make(labels.Set, len(set))
		for key, value := range set {
			shared[in.text(key)] = in.text(value)
		}
		return shared
	})
}

// selector compares by text, as the names of sets do.
func (in *Interner) selector(s labels.Selector) labels.Selector {
	if s == nil {
		return nil
	}
	alike := func(a, b labels.Selector) bool { return a.String() == b.String() }
	return in.selectors.share(maphash.String(hashSeed, s.String()), s, alike, nil)
}

var hashSeed = maphash.MakeSeed()

// HashLabels is equal for equal label sets within one process, in whatever order
// they are walked.
func HashLabels(set labels.Set) uint64 {
	var sum uint64
	for key, value := range set {
		sum += maphash.Comparable(hashSeed, [2]string{key, value})
	}
	return sum
}

func hashPorts(ports []NamedPort) uint64 {
	var sum uint64
	for _, port := range ports {
		sum = sum*31 + maphash.Comparable(hashSeed, port)
	}
	return sum
}

// generation is how many values a generation of a cache holds: more than most
// clusters have, in a few megabytes.
const generation = 1 << 14

// cache remembers between one and two generations of values by their hash. The zero
// value is empty.
type cache[V any] struct {
	young, old map[uint64]V
}

// share returns an equal value that earlier callers may have got too. A new value is stored as
// keep returns it, or as it is if keep is nil. Of two values with one hash, the newer one stays.
func (c *cache[V]) share(hash uint64, value V, equal func(a, b V) bool, keep func(V) V) V {
	if known, ok := c.young[hash]; ok && equal(known, value) {
		return known
	}
	known, ok := c.old[hash]
	switch {
	case ok && equal(known, value):
		value = known
	case keep != nil:
		value = keep(value)
	}
	if c.young == nil || len(c.young) >= generation {
		c.young, c.old = map[uint64]V{}, c.young
	}
	c.young[hash] = value
	return value
}
