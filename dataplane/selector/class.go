package selector

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/moat-dev/moat/dataplane/policy"
)

// space is a namespace that has pods or labels.
type space struct {
	name    string
	classes map[uint64][]*class // by the hash of their labels

	// sets are those without anchor that follow pods of this namespace.
	sets map[*set]struct{}
}

// class is the pods of one namespace with the same labels.
type class struct {
	space  *space
	labels labels.Set
	seats  []*seat
	sets   []*set
}

// seat is the place of a pod in its class.
type seat struct {
	pod   *policy.Pod
	class *class
	at    int // in class.seats
}

// space returns the namespace of that name and makes it if need be.
func (ix *Index) space(name string) *space {
	sp := ix.spaces[name]
	if sp == nil {
		sp = &space{name: name, classes: map[uint64][]*class{}, sets: map[*set]struct{}{}}
		ix.spaces[name] = sp
		ix.followAll(sp)
	}
	return sp
}

// tidy forgets a namespace that has neither pods nor labels.
func (ix *Index) tidy(sp *space) {
	if _, known := ix.namespaces[sp.name]; !known && len(sp.classes) == 0 {
		delete(ix.spaces, sp.name)
	}
}

// classOf returns the class that a pod belongs to and makes it if need be.
func (ix *Index) classOf(pod *policy.Pod) *class {
	sp, hash := ix.space(pod.Namespace), policy.HashLabels(pod.Labels)
	for _, c := range sp.classes[hash] {
		if maps.Equal(c.labels, pod.Labels) {
			return c
		}
	}
	c := &class{space: sp, labels: pod.Labels}
	sp.classes[hash] = append(sp.classes[hash], c)
	ix.columns.add(c)
	c.sets = ix.setsOf(c)
	for _, s := range c.sets {
		s.classes[c] = struct{}{}
	}
	return c
}

// move takes a pod from its class to another one, and shows its new version. Nil
// stands for no class.
func (ix *Index) move(st *seat, to *class, pod *policy.Pod) {
	from, old := st.class, st.pod
	if from == to && samePeer(old, pod) {
		st.pod = pod
		return
	}
	ix.touchAll(from, old)
	ix.touchAll(to, pod)
	if from != nil {
		from.leave(st)
		for _, addr := range old.Addrs {
			ix.owners.remove(addr, st)
		}
	}
	st.pod, st.class = pod, to
	if to != nil {
		st.at = len(to.seats)
		to.seats = append(to.seats, st)
		for _, addr := range pod.Addrs {
			ix.owners.add(addr, st)
		}
	}
	if from != nil && len(from.seats) == 0 {
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

// leave takes a pod out; the last one takes its place.
func (c *class) leave(st *seat) {
	last := c.seats[len(c.seats)-1]
	c.seats[st.at], last.at = last, st.at
	c.seats[len(c.seats)-1] = nil
	c.seats = c.seats[:len(c.seats)-1]
}

// forget removes a class without pods.
func (ix *Index) forget(c *class) {
	for _, s := range c.sets {
		delete(s.classes, c)
	}
	ix.columns.remove(c)
	hash := policy.HashLabels(c.labels)
	alike := slices.DeleteFunc(c.space.classes[hash], func(other *class) bool { return other == c })
	if len(alike) > 0 {
		c.space.classes[hash] = alike
		return
	}
	delete(c.space.classes, hash)
	ix.tidy(c.space)
}

// refresh looks again at the classes of a namespace, whose labels have changed.
func (ix *Index) refresh(sp *space) {
	ix.followAll(sp)
	for _, alike := range sp.classes {
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
	for _, st := range c.seats {
		ix.touch(s, st.pod)
	}
}
