package selector

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Index holds pods, namespaces and the wanted sets.
type Index struct {
	pods       map[types.NamespacedName]*podEntry
	owners     owners[*podEntry]
	namespaces policy.Namespaces     // those whose labels are known
	byName     map[string]*namespace // those that have pods or labels
	labels     labelIndex
	sets       map[string]*set
	changed    map[*set]struct{}
	lent       map[string]bool // keys whose index Count has made or used
}

// set is a wanted set. Its members are the elements of the pods of its classes.
type set struct {
	name     string
	peers    policy.PeerSet
	indexKey indexKey
	classes  map[*class]struct{}

	// isNew says that all of the elements have entered the set since the last
	// Changes. Otherwise touched holds the elements that may have changed since, and
	// whether they were members then.
	isNew   bool
	touched map[policy.Element]bool
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{
		pods:       map[types.NamespacedName]*podEntry{},
		owners:     newOwners[*podEntry](),
		namespaces: policy.Namespaces{},
		byName:     map[string]*namespace{},
		labels:     labelIndex{},
		sets:       map[string]*set{},
		changed:    map[*set]struct{}{},
		lent:       map[string]bool{},
	}
}

// SetPod adds a pod or replaces the one of that name.
func (ix *Index) SetPod(pod *policy.Pod) {
	key := pod.Key()
	if len(pod.Addrs) == 0 { // no peer
		ix.DeletePod(key)
		return
	}
	s := ix.pods[key]
	if s == nil {
		s = &podEntry{}
		ix.pods[key] = s
	}
	ix.move(s, ix.classOf(pod), pod)
}

// DeletePod forgets a pod.
func (ix *Index) DeletePod(key types.NamespacedName) {
	if s := ix.pods[key]; s != nil {
		ix.move(s, nil, nil)
		delete(ix.pods, key)
	}
}

// Namespaces returns the labels of the namespaces. It must not be changed, and changes
// with the index.
func (ix *Index) Namespaces() policy.Namespaces { return ix.namespaces }

// SetNamespace adds a namespace or replaces its labels.
func (ix *Index) SetNamespace(name string, labels map[string]string) {
	ix.namespaces[name] = labels
	ix.refresh(ix.namespace(name))
}

// DeleteNamespace forgets a namespace's labels.
func (ix *Index) DeleteNamespace(name string) {
	delete(ix.namespaces, name)
	if ns := ix.byName[name]; ns != nil {
		ix.refresh(ns)
		ix.tidy(ns)
	}
}

// Want makes the index follow exactly the given sets, by their names.
func (ix *Index) Want(wanted map[string]policy.PeerSet) {
	for name, s := range ix.sets {
		if _, keep := wanted[name]; !keep {
			ix.drop(s)
		}
	}
	for name, peers := range wanted {
		if ix.sets[name] == nil {
			ix.follow(name, peers)
		}
	}
	ix.takeBack()
}

// Elements calls yield once with each element of a set.
func (ix *Index) Elements(name string, yield func(policy.Element)) {
	if s := ix.sets[name]; s != nil {
		ix.elements(s, yield)
	}
}

func (ix *Index) elements(s *set, yield func(policy.Element)) {
	for c := range s.classes {
		for _, entry := range c.entries {
			s.peers.Elements(entry.pod, func(element policy.Element) {
				if ix.holder(s, element) == entry { // of several pods that show it, one counts
					yield(element)
				}
			})
		}
	}
}

// Changed reports whether Changes may report a change.
func (ix *Index) Changed() bool { return len(ix.changed) > 0 }

// Changes calls yield with each element that entered or left a wanted set since
// the last call, and whether it is a member now, and forgets the changes. All
// elements of a set that is newly wanted have entered it.
func (ix *Index) Changes(yield func(name string, element policy.Element, member bool)) {
	for s := range ix.changed {
		if s.isNew {
			ix.elements(s, func(element policy.Element) { yield(s.name, element, true) })
		}
		for element, was := range s.touched {
			if member := ix.holder(s, element) != nil; member != was {
				yield(s.name, element, member)
			}
		}
		s.isNew, s.touched = false, nil
	}
	clear(ix.changed)
}

// holder returns a pod by which the element is a member of the set, nil if there is
// none. Of several such pods it always returns the same one.
func (ix *Index) holder(s *set, element policy.Element) *podEntry {
	return ix.owners.find(element.Addr, func(entry *podEntry) bool {
		if _, in := s.classes[entry.class]; !in {
			return false
		}
		held := false
		s.peers.Elements(entry.pod, func(other policy.Element) { held = held || other == element })
		return held
	})
}

// touch notes, before a change of the pod, which elements of the set it may concern.
func (ix *Index) touch(s *set, pod *policy.Pod) {
	if s.isNew {
		return // Changes walks over it anyway
	}
	s.peers.Elements(pod, func(element policy.Element) {
		if s.touched == nil {
			s.touched = map[policy.Element]bool{}
			ix.changed[s] = struct{}{}
		}
		if _, known := s.touched[element]; !known {
			s.touched[element] = ix.holder(s, element) != nil
		}
	})
}
