// Package policystore holds the policies that an agent hears of, and bounds the memory that
// those of one namespace take.
//
// Every agent holds the policies of the whole cluster, and the API server stores up to 1.5 MB
// for each. Without a bound, a user of one namespace could have every
// agent killed for its memory, and with it the enforcement of all policies. So a namespace
// has a limit. Beyond it the youngest policies are held without their rules: such a policy is
// over budget, and the pods that it selects are closed.
//
// The bound is kept while a list arrives: informers collect it whole before they hand it on.
package policystore

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"weak"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Held is a policy that an informer holds. Its Store may take the rules out of it, and a
// Refill puts them back. It is safe for concurrent use.
type Held struct{ policy atomic.Pointer[policy.Policy] }

// Hold returns a policy that no Store bounds.
func Hold(p *policy.Policy) *Held {
	h := &Held{}
	h.policy.Store(p)
	return h
}

// Policy returns the policy as it is held now.
func (h *Held) Policy() *policy.Policy { return h.policy.Load() }

// Key identifies the policy.
func (h *Held) Key() types.NamespacedName { return h.Policy().Key() }

// Store bounds the memory of policies. It is safe for concurrent use, and calls nothing
// while it is locked.
type Store struct {
	// Changed is called after the rules were taken out of a policy or came back. Set it
	// before the first policy is added; nil: nothing is called.
	Changed func(*Held)

	limit      int
	mu         sync.Mutex
	namespaces map[string]*namespace
	omitting   map[string]struct{} // the namespaces of which policies may have no rules

	// most is the size of the largest namespace; negative: unknown.
	most int
}

// namespace holds the policies of one.
type namespace struct {
	size   int // of all, whole
	byName map[string]*entry
	byAge  []*entry // the oldest first
}

// entry refers to a policy weakly: a list that breaks off leaves policies that no informer
// holds, and that no event removes.
type entry struct {
	held    weak.Pointer[Held]
	name    string
	created int64
	size    int
}

func older(a, b *entry) int {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.name, b.name))
}

// New returns a store in which the policies of a namespace take about so many bytes at most.
// Zero: there is no limit.
func New(limit int) *Store {
	return &Store{limit: limit, namespaces: map[string]*namespace{}, omitting: map[string]struct{}{}}
}

// Add returns the policy to hold in place of the one of its name.
func (s *Store) Add(p *policy.Policy) *Held {
	h := Hold(p)
	if s.limit == 0 {
		return h
	}
	s.mu.Lock()
	n := s.namespaces[p.Namespace]
	if n == nil {
		n = &namespace{byName: map[string]*entry{}}
		s.namespaces[p.Namespace] = n
	}
	n.remove(n.byName[p.Name])
	n.insert(&entry{held: weak.Make(h), name: p.Name, created: p.Created, size: p.Size})
	s.most = -1
	var changed []*Held
	if n.size > s.limit {
		changed = s.omit(p.Namespace)
	}
	s.mu.Unlock()
	s.tell(changed)
	return h
}

// Remove forgets a policy, unless another one of its name has come.
func (s *Store) Remove(h *Held) {
	key := h.Key()
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.namespaces[key.Namespace]
	if n == nil {
		return
	}
	e := n.byName[key.Name]
	if e == nil || e.held.Value() != h {
		return
	}
	n.remove(e)
	s.most = -1
	if len(n.byName) == 0 {
		delete(s.namespaces, key.Namespace)
		delete(s.omitting, key.Namespace)
	}
}

// Refill gives a policy its rules back, if it is still held in that version and there is
// room for it now.
func (s *Store) Refill(h *Held, p *policy.Policy) {
	s.mu.Lock()
	held := h.Policy()
	fits := held.Omitted && held.UID == p.UID && held.Generation == p.Generation && slices.Contains(s.fitting(p.Namespace), h)
	if fits {
		h.policy.Store(p)
	}
	s.mu.Unlock()
	if fits {
		s.tell([]*Held{h})
	}
}

// Fitting returns the policies without rules for which there is room now, the oldest of each
// namespace first.
func (s *Store) Fitting() []*Held {
	s.mu.Lock()
	defer s.mu.Unlock()
	var fitting []*Held
	for _, name := range slices.Sorted(maps.Keys(s.omitting)) {
		fitting = append(fitting, s.fitting(name)...)
	}
	return fitting
}

// Used returns the part of the limit that the policies of a namespace take, of the
// namespace that takes most. More than 1: rules are left out.
func (s *Store) Used() float64 {
	if s.limit == 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most < 0 {
		s.most = 0
		for _, n := range s.namespaces {
			s.most = max(s.most, n.size)
		}
	}
	return float64(s.most) / float64(s.limit)
}

func (s *Store) tell(changed []*Held) {
	if s.Changed == nil {
		return
	}
	for _, h := range changed {
		s.Changed(h)
	}
}

// omit takes the rules out of policies of a namespace for which there is no room, and returns
// these.
func (s *Store) omit(name string) []*Held {
	var changed []*Held
	s.namespaces[name].each(s.limit, func(h *Held, fits bool) {
		if p := h.Policy(); !fits && !p.Omitted {
			h.policy.Store(p.WithoutRules())
			changed = append(changed, h)
		}
	})
	if len(changed) > 0 {
		s.omitting[name] = struct{}{}
	}
	return changed
}

func (s *Store) fitting(name string) []*Held {
	if _, may := s.omitting[name]; !may {
		return nil
	}
	var fitting []*Held
	omits := false
	s.most = -1 // each may forget policies
	s.namespaces[name].each(s.limit, func(h *Held, fits bool) {
		if !h.Policy().Omitted {
			return
		}
		omits = true
		if fits {
			fitting = append(fitting, h)
		}
	})
	if !omits {
		delete(s.omitting, name)
	}
	return fitting
}

func (n *namespace) insert(e *entry) {
	at, _ := slices.BinarySearchFunc(n.byAge, e, older)
	n.byAge = slices.Insert(n.byAge, at, e)
	n.byName[e.name] = e
	n.size += e.size
}

// remove forgets an entry, which may be nil.
func (n *namespace) remove(e *entry) {
	if e == nil {
		return
	}
	if at, found := slices.BinarySearchFunc(n.byAge, e, older); found {
		n.byAge = slices.Delete(n.byAge, at, at+1)
	}
	delete(n.byName, e.name)
	n.size -= e.size
}

// each calls do with the policies, the oldest first, and whether each fits beside the older
// ones that do. Those that nothing holds are forgotten.
func (n *namespace) each(limit int, do func(h *Held, fits bool)) {
	var gone []*entry
	sum := 0
	for _, e := range n.byAge {
		h := e.held.Value()
		if h == nil {
			gone = append(gone, e)
			continue
		}
		fits := sum+e.size <= limit
		if fits {
			sum += e.size
		}
		do(h, fits)
	}
	for _, e := range gone {
		n.remove(e)
	}
}
