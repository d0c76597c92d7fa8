package selector

import (
	"slices"

	"k8s.io/apimachinery/pkg/selection"

	"github.com/moat-dev/moat/dataplane/policy"
)

// labelIndex finds classes and sets by the label keys of which wanted sets require a
// value. Other keys have no index: some of them have another value for each pod.
type labelIndex map[string]*keyIndex

// keyIndex is the index of one label key.
type keyIndex struct {
	users  int // sets that require a value of the key
	values map[string]*postings
}

// postings are the classes and sets of one value of a key.
type postings struct {
	classes map[*class]struct{} // that have the value
	sets    map[*set]struct{}   // whose index key is this key, with this value among others
}

// indexKey is a requirement that all classes of a set meet: the label of this key has one of
// these values. Only such classes are compared with the set, and a class only with sets whose
// index key its labels meet.
type indexKey struct {
	key    string
	values []string // empty: the set has no such requirement

	required []string // all keys of which the set requires a value
}

func (k *keyIndex) postings(value string) *postings {
	b := k.values[value]
	if b == nil {
		b = &postings{classes: map[*class]struct{}{}, sets: map[*set]struct{}{}}
		k.values[value] = b
	}
	return b
}

func (k *keyIndex) tidy(value string) {
	if b := k.values[value]; len(b.classes) == 0 && len(b.sets) == 0 {
		delete(k.values, value)
	}
}

// add enters a class by those of its labels whose key has an index.
func (li labelIndex) add(c *class) {
	for key, value := range c.labels {
		if index := li[key]; index != nil {
			index.postings(value).classes[c] = struct{}{}
		}
	}
}

func (li labelIndex) remove(c *class) {
	for key, value := range c.labels {
		if index := li[key]; index != nil {
			delete(index.values[value].classes, c)
			index.tidy(value)
		}
	}
}

// require counts a set that requires a value of the key, and makes the key's index for the first
// such set.
func (ix *Index) require(key string) {
	index := ix.labels[key]
	if index == nil {
		index = &keyIndex{values: map[string]*postings{}}
		ix.labels[key] = index
		ix.everyClass(func(c *class) {
			if value, has := c.labels[key]; has {
				index.postings(value).classes[c] = struct{}{}
			}
		})
	}
	index.users++
}

// indexKeyOf chooses the requirement with the fewest classes and sets.
func (ix *Index) indexKeyOf(s *set) indexKey {
	var best indexKey
	var required []string
	fewest := 0
	requirements, _ := s.peers.Pods.Pods.Requirements()
	for i := range requirements {
		switch requirements[i].Operator() {
		case selection.Equals, selection.DoubleEquals, selection.In:
		default:
			continue
		}
		key, values := requirements[i].Key(), distinct(requirements[i].ValuesUnsorted())
		ix.require(key)
		required = append(required, key)
		held := 0
		for _, value := range values {
			b := ix.labels[key].postings(value)
			held += len(b.classes) + len(b.sets)
			ix.labels[key].tidy(value)
		}
		if best.values == nil || held < fewest {
			best, fewest = indexKey{key: key, values: values}, held
		}
	}
	best.required = required
	return best
}

func distinct(values []string) []string {
	slices.Sort(values)
	return slices.Compact(values)
}

// follow begins to follow a set.
func (ix *Index) follow(name string, peers policy.PeerSet) {
	s := &set{name: name, peers: peers, classes: map[*class]struct{}{}, isNew: true}
	ix.sets[name] = s
	ix.changed[s] = struct{}{}
	s.indexKey = ix.indexKeyOf(s)
	for _, value := range s.indexKey.values {
		ix.labels[s.indexKey.key].postings(value).sets[s] = struct{}{}
	}
	if s.indexKey.values == nil {
		for _, ns := range ix.byName {
			ix.followIn(ns, s)
		}
	}
	ix.candidates(s, func(c *class) {
		if s.peers.Pods.MatchesNamespace(c.namespace.name, ix.namespaces) && s.peers.Pods.Pods.Matches(c.labels) {
			s.classes[c] = struct{}{}
			c.sets = append(c.sets, s)
		}
	})
}

// drop forgets a set.
func (ix *Index) drop(s *set) {
	delete(ix.sets, s.name)
	delete(ix.changed, s)
	for c := range s.classes {
		c.sets = slices.DeleteFunc(c.sets, func(other *set) bool { return other == s })
	}
	for _, value := range s.indexKey.values {
		delete(ix.labels[s.indexKey.key].values[value].sets, s)
		ix.labels[s.indexKey.key].tidy(value)
	}
	for _, key := range s.indexKey.required {
		ix.release(key)
	}
	if s.indexKey.values == nil {
		for _, ns := range ix.byName {
			delete(ns.sets, s)
		}
	}
}

// followAll works out which sets without an index key follow the namespace.
func (ix *Index) followAll(ns *namespace) {
	for _, s := range ix.sets {
		if s.indexKey.values == nil {
			ix.followIn(ns, s)
		}
	}
}

func (ix *Index) followIn(ns *namespace, s *set) {
	if s.peers.Pods.MatchesNamespace(ns.name, ix.namespaces) {
		ns.sets[s] = struct{}{}
	} else {
		delete(ns.sets, s)
	}
}

// setsOf returns the sets that a class is in.
func (ix *Index) setsOf(c *class) []*set {
	var sets []*set
	for s := range c.namespace.sets {
		if s.peers.Pods.Pods.Matches(c.labels) {
			sets = append(sets, s)
		}
	}
	for key, value := range c.labels {
		index := ix.labels[key]
		if index == nil || index.values[value] == nil {
			continue
		}
		for s := range index.values[value].sets {
			if s.peers.Pods.MatchesNamespace(c.namespace.name, ix.namespaces) && s.peers.Pods.Pods.Matches(c.labels) {
				sets = append(sets, s)
			}
		}
	}
	return sets
}

// candidates calls yield with each class that may be in the set: those that meet its index key,
// or those of the namespaces that it follows, where these are fewer.
func (ix *Index) candidates(s *set, yield func(*class)) {
	posted := 0
	for _, value := range s.indexKey.values {
		posted += len(ix.labels[s.indexKey.key].values[value].classes)
	}
	own := ix.byName[s.peers.Pods.Namespace]
	switch {
	case s.peers.Pods.Namespace != "" && (s.indexKey.values == nil || own == nil || len(own.classes) < posted):
		own.each(yield)
	case s.peers.Pods.Namespace == "" && (s.indexKey.values == nil || len(ix.byName) < posted && !s.peers.Pods.Namespaces.Empty()):
		for _, ns := range ix.byName {
			if s.peers.Pods.MatchesNamespace(ns.name, ix.namespaces) {
				ns.each(yield)
			}
		}
	default:
		for _, value := range s.indexKey.values {
			for c := range ix.labels[s.indexKey.key].values[value].classes {
				yield(c)
			}
		}
	}
}

// each calls yield with each class of a namespace. A nil namespace has none.
func (ns *namespace) each(yield func(*class)) {
	if ns == nil {
		return
	}
	for _, alike := range ns.classes {
		for _, c := range alike {
			yield(c)
		}
	}
}

func (ix *Index) everyClass(yield func(*class)) {
	for _, ns := range ix.byName {
		ns.each(yield)
	}
}
