// Package selector keeps track of which pod addresses each peer selector holds.
//
// An Index is fed with pods and namespaces one at a time and knows at any moment
// the members of each set that is wanted. It hands out what changed since the
// last look, so that a pod event costs the sets that the pod enters or leaves and
// never a walk over the cluster.
//
// Selectors are evaluated for classes of pods, not for pods: pods of one namespace
// with equal labels are in the same sets. Memory is shared accordingly: a class
// lists its pods and the sets that it is in, a set lists its classes, and no set
// lists an address. Most pods come to a class that exists, at no evaluation at
// all; for a new class only those sets are looked at that ask for one of its
// labels, or that ask for none and follow its namespace (column.go).
//
// The package is pure. An Index must not be used by several goroutines at once.
package selector

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Index holds pods, namespaces and the wanted sets.
type Index struct {
	pods       map[types.NamespacedName]*seat
	owners     owners[*seat]
	namespaces policy.Namespaces // those whose labels are known
	spaces     map[string]*space
	columns    columns
	sets       map[string]*set
	changed    map[*set]struct{}
	lent       map[string]bool // keys whose columns Count has made or used
}

// set is a wanted set. Its members are the elements of the pods of its classes.
type set struct {
	name    string
	peers   policy.PeerSet
	anchor  anchor
	classes map[*class]struct{}

	// isNew says that all of the elements have entered the set since the last
	// Changes. Otherwise touched holds those that may have changed since, and
	// whether they were members then.
	isNew   bool
	touched map[policy.Element]bool
}

// NewIndex returns an empty index.
func NewIndex() *Index {
	return &Index{
		pods:       map[types.NamespacedName]*seat{},
		owners:     newOwners[*seat](),
		namespaces: policy.Namespaces{},
		spaces:     map[string]*space{},
		columns:    columns{},
		sets:       map[string]*set{},
		changed:    map[*set]struct{}{},
		lent:       map[string]bool{},
	}
}

// SetPod adds a pod or replaces the one of that name.
func (ix *Index) SetPod(pod *policy.Pod) {
	key := pod.Key()
	if len(pod.Addrs) == 0 { // nobody's peer
		ix.DeletePod(key)
		return
	}
	s := ix.pods[key]
	if s == nil {
		s = &seat{}
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
	ix.refresh(ix.space(name))
}

// DeleteNamespace forgets a namespace's labels.
func (ix *Index) DeleteNamespace(name string) {
	delete(ix.namespaces, name)
	if sp := ix.spaces[name]; sp != nil {
		ix.refresh(sp)
		ix.tidy(sp)
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
		for _, st := range c.seats {
			s.peers.Elements(st.pod, func(element policy.Element) {
				if ix.holder(s, element) == st { // of several that show it, one counts
					yield(element)
				}
			})
		}
	}
}

// Changed reports whether Changes may have anything to say.
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
// none. Of several it is always the same.
func (ix *Index) holder(s *set, element policy.Element) *seat {
	return ix.owners.find(element.Addr, func(st *seat) bool {
		if _, in := s.classes[st.class]; !in {
			return false
		}
		held := false
		s.peers.Elements(st.pod, func(other policy.Element) { held = held || other == element })
		return held
	})
}

// touch notes, before a change, that it may concern the pod's elements of the set.
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
