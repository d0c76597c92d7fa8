package selector

import (
	"slices"

	"k8s.io/apimachinery/pkg/selection"

	"github.com/moat-dev/moat/dataplane/policy"
)

// columns index classes and sets by the label keys of which wanted sets require a
// value. Keys that no set asks for, which many pods have values of their own of,
// have no column.
type columns map[string]*column

// column is one label key.
type column struct {
	users   int // sets that require a value of the key
	buckets map[string]*bucket
}

// bucket is one value of the key.
type bucket struct {
	classes map[*class]struct{} // that have it
	sets    map[*set]struct{}   // that are anchored here
}

// anchor is a requirement that whatever is in a set meets: the label of this key
// has one of these values. Only classes that do are looked at for the set, and for
// a class only the sets that are anchored at its labels.
type anchor struct {
	key    string
	values []string // none: there is no such requirement

	required []string // all keys of which the set requires a value
}

func (col *column) bucket(value string) *bucket {
	b := col.buckets[value]
	if b == nil {
		b = &bucket{classes: map[*class]struct{}{}, sets: map[*set]struct{}{}}
		col.buckets[value] = b
	}
	return b
}

func (col *column) tidy(value string) {
	if b := col.buckets[value]; len(b.classes) == 0 && len(b.sets) == 0 {
		delete(col.buckets, value)
	}
}

// add enters a class with those of its labels that have a column.
func (cs columns) add(c *class) {
	for key, value := range c.labels {
		if col := cs[key]; col != nil {
			col.bucket(value).classes[c] = struct{}{}
		}
	}
}

func (cs columns) remove(c *class) {
	for key, value := range c.labels {
		if col := cs[key]; col != nil {
			delete(col.buckets[value].classes, c)
			col.tidy(value)
		}
	}
}

// require makes sure that there is a column for the key.
func (ix *Index) require(key string) {
	col := ix.columns[key]
	if col == nil {
		col = &column{buckets: map[string]*bucket{}}
		ix.columns[key] = col
		ix.everyClass(func(c *class) {
			if value, has := c.labels[key]; has {
				col.bucket(value).classes[c] = struct{}{}
			}
		})
	}
	col.users++
}

// anchorOf chooses the requirement with the fewest classes and sets.
func (ix *Index) anchorOf(s *set) anchor {
	var best anchor
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
			b := ix.columns[key].bucket(value)
			held += len(b.classes) + len(b.sets)
			ix.columns[key].tidy(value)
		}
		if best.values == nil || held < fewest {
			best, fewest = anchor{key: key, values: values}, held
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
	s.anchor = ix.anchorOf(s)
	for _, value := range s.anchor.values {
		ix.columns[s.anchor.key].bucket(value).sets[s] = struct{}{}
	}
	if s.anchor.values == nil {
		for _, sp := range ix.spaces {
			ix.followIn(sp, s)
		}
	}
	ix.candidates(s, func(c *class) {
		if s.peers.Pods.MatchesNamespace(c.space.name, ix.namespaces) && s.peers.Pods.Pods.Matches(c.labels) {
			s.classes[c] = struct{}{}
			c.sets = append(c.sets, s)
		}
	})
}

// drop follows a set no longer.
func (ix *Index) drop(s *set) {
	delete(ix.sets, s.name)
	delete(ix.changed, s)
	for c := range s.classes {
		c.sets = slices.DeleteFunc(c.sets, func(other *set) bool { return other == s })
	}
	for _, value := range s.anchor.values {
		delete(ix.columns[s.anchor.key].buckets[value].sets, s)
		ix.columns[s.anchor.key].tidy(value)
	}
	for _, key := range s.anchor.required {
		ix.release(key)
	}
	if s.anchor.values == nil {
		for _, sp := range ix.spaces {
			delete(sp.sets, s)
		}
	}
}

// followAll works out which sets without anchor follow the namespace.
func (ix *Index) followAll(sp *space) {
	for _, s := range ix.sets {
		if s.anchor.values == nil {
			ix.followIn(sp, s)
		}
	}
}

func (ix *Index) followIn(sp *space, s *set) {
	if s.peers.Pods.MatchesNamespace(sp.name, ix.namespaces) {
		sp.sets[s] = struct{}{}
	} else {
		delete(sp.sets, s)
	}
}

// setsOf returns the sets that a class is in.
func (ix *Index) setsOf(c *class) []*set {
	var sets []*set
	for s := range c.space.sets {
		if s.peers.Pods.Pods.Matches(c.labels) {
			sets = append(sets, s)
		}
	}
	for key, value := range c.labels {
		col := ix.columns[key]
		if col == nil || col.buckets[value] == nil {
			continue
		}
		for s := range col.buckets[value].sets {
			if s.peers.Pods.MatchesNamespace(c.space.name, ix.namespaces) && s.peers.Pods.Pods.Matches(c.labels) {
				sets = append(sets, s)
			}
		}
	}
	return sets
}

// candidates calls yield with each class that may be in the set: those of its anchor,
// or of the namespaces that it follows where these are fewer.
func (ix *Index) candidates(s *set, yield func(*class)) {
	anchored := 0
	for _, value := range s.anchor.values {
		anchored += len(ix.columns[s.anchor.key].buckets[value].classes)
	}
	own := ix.spaces[s.peers.Pods.Namespace]
	switch {
	case s.peers.Pods.Namespace != "" && (s.anchor.values == nil || own == nil || len(own.classes) < anchored):
		own.each(yield)
	case s.peers.Pods.Namespace == "" && (s.anchor.values == nil || len(ix.spaces) < anchored && !s.peers.Pods.Namespaces.Empty()):
		for _, sp := range ix.spaces {
			if s.peers.Pods.MatchesNamespace(sp.name, ix.namespaces) {
				sp.each(yield)
			}
		}
	default:
		for _, value := range s.anchor.values {
			for c := range ix.columns[s.anchor.key].buckets[value].classes {
				yield(c)
			}
		}
	}
}

// each calls yield with each class of a namespace; nil has none.
func (sp *space) each(yield func(*class)) {
	if sp == nil {
		return
	}
	for _, alike := range sp.classes {
		for _, c := range alike {
			yield(c)
		}
	}
}

func (ix *Index) everyClass(yield func(*class)) {
	for _, sp := range ix.spaces {
		sp.each(yield)
	}
}
