// Package selector keeps track of which pod addresses each peer selector holds.
//
// An Index is fed with pods and namespaces one at a time and knows at any moment
// the members of each set that is wanted. It hands out what changed since the
// last look, so that a pod event costs the sets that the pod enters or leaves and
// never a walk over the cluster.
//
// The package is pure. An Index must not be used by several goroutines at once.
package selector

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Index holds pods, namespaces and the wanted sets.
type Index struct {
	pods       map[types.NamespacedName]*entry
	byNS       map[string]map[types.NamespacedName]*entry
	namespaces policy.Namespaces
	sets       map[string]*set
}

// entry is a pod with the sets it is a member of now.
type entry struct {
	pod  *policy.Pod
	sets map[string]struct{}
}

// set counts how many pods hold each element: two pods may have one address for
// a moment, when the old one is on its way out.
type set struct {
	peers  policy.PeerSet
	counts map[policy.Element]int

	// touched remembers, for each element whose count changed since the last
	// Changes, whether it was a member then.
	touched map[policy.Element]bool
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{
		pods:       map[types.NamespacedName]*entry{},
		byNS:       map[string]map[types.NamespacedName]*entry{},
		namespaces: policy.Namespaces{},
		sets:       map[string]*set{},
	}
}

// SetPod adds a pod or replaces the one of that name.
func (ix *Index) SetPod(pod *policy.Pod) {
	key := pod.Key()
	e := ix.pods[key]
	if e == nil {
		e = &entry{}
		ix.pods[key] = e
		if ix.byNS[pod.Namespace] == nil {
			ix.byNS[pod.Namespace] = map[types.NamespacedName]*entry{}
		}
		ix.byNS[pod.Namespace][key] = e
	}
	ix.move(e, pod)
}

// DeletePod forgets a pod.
func (ix *Index) DeletePod(key types.NamespacedName) {
	e := ix.pods[key]
	if e == nil {
		return
	}
	ix.leaveAll(e)
	delete(ix.pods, key)
	delete(ix.byNS[key.Namespace], key)
	if len(ix.byNS[key.Namespace]) == 0 {
		delete(ix.byNS, key.Namespace)
	}
}

// SetNamespace adds a namespace or replaces its labels.
func (ix *Index) SetNamespace(name string, labels map[string]string) {
	ix.namespaces[name] = labels
	ix.refresh(name)
}

// DeleteNamespace forgets a namespace's labels.
func (ix *Index) DeleteNamespace(name string) {
	delete(ix.namespaces, name)
	ix.refresh(name)
}

// refresh looks again at every pod of a namespace.
func (ix *Index) refresh(namespace string) {
	for _, e := range ix.byNS[namespace] {
		ix.move(e, e.pod)
	}
}

// Want makes the index follow exactly the given sets, by their names.
func (ix *Index) Want(wanted map[string]policy.PeerSet) {
	for name := range ix.sets {
		if _, keep := wanted[name]; !keep {
			ix.drop(name)
		}
	}
	for name, peers := range wanted {
		if ix.sets[name] == nil {
			ix.follow(name, peers)
		}
	}
}

func (ix *Index) drop(name string) {
	delete(ix.sets, name)
	for _, e := range ix.pods {
		delete(e.sets, name)
	}
}

func (ix *Index) follow(name string, peers policy.PeerSet) {
	s := &set{peers: peers, counts: map[policy.Element]int{}, touched: map[policy.Element]bool{}}
	ix.sets[name] = s
	for _, e := range ix.pods {
		if s.peers.Pods.Matches(e.pod, ix.namespaces) {
			e.join(name, s)
		}
	}
}

// Elements calls yield with each element of a set.
func (ix *Index) Elements(name string, yield func(policy.Element)) {
	s := ix.sets[name]
	if s == nil {
		return
	}
	for element := range s.counts {
		yield(element)
	}
}

// Changes calls yield with each element that entered or left a wanted set since
// the last call, and whether it is a member now, and forgets the changes. All
// elements of a set that is newly wanted have entered it.
func (ix *Index) Changes(yield func(name string, element policy.Element, member bool)) {
	for name, s := range ix.sets {
		for element, was := range s.touched {
			if member := s.counts[element] > 0; member != was {
				yield(name, element, member)
			}
		}
		clear(s.touched)
	}
}

// move takes a pod out of its sets and puts its new version into those that
// match. An element that leaves and enters again is no change: Changes compares
// the end with the beginning.
func (ix *Index) move(e *entry, pod *policy.Pod) {
	ix.leaveAll(e)
	e.pod = pod
	for name, s := range ix.sets {
		if s.peers.Pods.Matches(pod, ix.namespaces) {
			e.join(name, s)
		}
	}
}

func (ix *Index) leaveAll(e *entry) {
	for name := range e.sets {
		s := ix.sets[name]
		for _, element := range s.peers.Elements(e.pod) {
			s.count(element, -1)
		}
	}
	e.sets = nil
}

func (e *entry) join(name string, s *set) {
	if e.sets == nil {
		e.sets = map[string]struct{}{}
	}
	e.sets[name] = struct{}{}
	for _, element := range s.peers.Elements(e.pod) {
		s.count(element, 1)
	}
}

func (s *set) count(element policy.Element, by int) {
	if _, known := s.touched[element]; !known {
		s.touched[element] = s.counts[element] > 0
	}
	s.counts[element] += by
	if s.counts[element] == 0 {
		delete(s.counts, element)
	}
}
