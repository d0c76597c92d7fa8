package selector

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/moat-dev/moat/dataplane/policy"
)

// namespace is one that has pods or labels.
type namespace struct {
	name    string
	classes map[uint64][]*class // by the hash of their labels

	// sets are those without an index key that follow pods of this namespace.
	sets map[*set]struct{}
}

// class is all pods of one namespace with the same labels.
type class struct {
	namespace *namespace
	labels    labels.Set
	entries   []*podEntry
	sets      []*set
}

// podEntry is a pod in the list of its class.
type podEntry struct {
	pod   *policy.Pod
	class *class
	at    int // in class.entries
}

// namespace returns the namespace of that name. It makes the namespace if there is none.
func (ix *Index) namespace(name string) *namespace {
	ns := ix.byName[name]
	if ns == nil {
		ns = &namespace{name: name, classes: map[uint64][]*class{}, sets: map[*set]struct{}{}}
		ix.byName[name] = ns
		ix.followAll(ns)
	}
	return ns
}

// tidy forgets a namespace that has neither pods nor labels.
func (ix *Index) tidy(ns *namespace) {
	if _, known := ix.namespaces[ns.name]; !known && len(ns.classes) == 0 {
		delete(ix.byName, ns.name)
	}
}

// classOf returns the class that a pod belongs to. It makes the class if there is none.
func (ix *Index) classOf(pod *policy.Pod) *class {
	ns, hash := ix.namespace(pod.Namespace), policy.HashLabels(pod.Labels)
	for _, c := range ns.classes[hash] {
		if maps.Equal(c.labels, pod.Labels) {
			return c
		}
	}
	c := &class{namespace: ns, labels: pod.Labels}
	ns.classes[hash] = append(ns.classes[hash], c)
	ix.labels.add(c)
	c.sets = ix.setsOf(c)
	for _, s := range c.sets {
		s.classes[c] = struct{}{}
	}
	return c
}

// move takes a pod from its class to another one, and stores its new version. A nil class
// is none.
func (ix *Index) move(entry *podEntry, to *class, pod *policy.Pod) {
	from, old := entry.class, entry.pod
	if from == to && samePeer(old, pod) {
		entry.pod = pod
		return
	}
	ix.touchAll(from, old)
	ix.touchAll(to, pod)
	if from != nil {
		from.leave(entry)
		for _, addr := range old.Addrs {
			ix.owners.remove(addr, entry)
		}
	}
	entry.pod, entry.class = pod, to
	if to != nil {
		entry.at = len(to.entries)
		to.entries = append(to.entries, entry)
		for _, addr := range pod.Addrs {
			ix.owners.add(addr, entry)
		}
	}
	if from != nil && len(from.entries) == 0 {
		ix.forget(from)
	}
}

// samePeer reports whether two versions of a pod contribute the same to the sets
// of their class.
func samePeer(a, b *policy.Pod) bool {
	return slices.Equal(a.Addrs, b.Addrs) && slices.Equal(a.Ports, b.Ports)
}

func (ix *Index) touchAll(c *class, pod *policy.Pod) {
	if c == nil {
		return
	}
	for _, s := range c.sets {
		ix.touch(s, pod)
	}
}

// leave takes a pod out. The last pod of the list takes its place.
func (c *class) leave(entry *podEntry) {
	last := c.entries[len(c.entries)-1]
	c.entries[entry.at], last.at = last, entry.at
	c.entries[len(c.entries)-1] = nil
	c.entries = c.entries[:len(c.entries)-1]
}

// forget removes a class without pods.
func (ix *Index) forget(c *class) {
	for _, s := range c.sets {
		delete(s.classes, c)
	}
	ix.labels.remove(c)
	hash := policy.HashLabels(c.labels)
	alike := slices.DeleteFunc(c.namespace.classes[hash], func(other *class) bool { return other == c })
	if len(alike) > 0 {
		c.namespace.classes[hash] = alike
		return
	}
	delete(c.namespace.classes, hash)
	ix.tidy(c.namespace)
}

// refresh works out the sets of a namespace's classes, after its labels have changed.
func (ix *Index) refresh(ns *namespace) {
	ix.followAll(ns)
	for _, alike := range ns.classes {
		for _, c := range alike {
			ix.rejoin(c, ix.setsOf(c))
		}
	}
}

// rejoin puts a class into exactly these sets.
func (ix *Index) rejoin(c *class, sets []*set) {
	wanted := make(map[*set]struct{}, len(sets))
	for _, s := range sets {
		wanted[s] = struct{}{}
		if _, in := s.classes[c]; !in {
			ix.touchPods(s, c)
			s.classes[c] = struct{}{}
		}
	}
	for _, s := range c.sets {
		if _, stays := wanted[s]; !stays {
			ix.touchPods(s, c)
			delete(s.classes, c)
		}
	}
	c.sets = sets
}

func (ix *Index) touchPods(s *set, c *class) {
	for _, entry := range c.entries {
		ix.touch(s, entry.pod)
	}
}
