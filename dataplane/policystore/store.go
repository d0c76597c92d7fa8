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
}

// namespace holds the policies of one by name.
type namespace struct {
	size     int // of all, whole
	omits    bool
	policies map[string]entry
}

// entry refers to a policy weakly: a list that breaks off leaves policies that no informer
// holds, and that no event removes.
type entry struct {
	held    weak.Pointer[Held]
	created int64
	size    int
}

// New returns a store in which the policies of a namespace take about so many bytes at most.
// Zero: there is no limit.
func New(limit int) *Store {
	return &Store{limit: limit, namespaces: map[string]*namespace{}}
}

// Limit is how many bytes the policies of one namespace may take; zero: no limit.
func (s *Store) Limit() int { return s.limit }

// Add returns the policy to hold in place of the one of its name.
func (s *Store) Add(p *policy.Policy) *Held {
	h := Hold(p)
	s.mu.Lock()
	n := s.namespaces[p.Namespace]
	if n == nil {
		n = &namespace{policies: map[string]entry{}}
		s.namespaces[p.Namespace] = n
	}
	n.remove(p.Name)
	n.policies[p.Name] = entry{held: weak.Make(h), created: p.Created, size: p.Size}
	n.size += p.Size
	changed := s.omit(n)
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
	if n == nil || n.policies[key.Name].held.Value() != h {
		return
	}
	n.remove(key.Name)
	if len(n.policies) == 0 {
		delete(s.namespaces, key.Namespace)
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
	for _, name := range slices.Sorted(maps.Keys(s.namespaces)) {
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
	most := 0
	for _, n := range s.namespaces {
		most = max(most, n.size)
	}
	return float64(most) / float64(s.limit)
}

func (s *Store) tell(changed []*Held) {
	if s.Changed == nil {
		return
	}
	for _, h := range changed {
		s.Changed(h)
	}
}

// omit takes the rules out of policies for which there is no room, and returns these.
func (s *Store) omit(n *namespace) []*Held {
	if s.limit == 0 || n.size <= s.limit {
		return nil
	}
	var changed []*Held
	for _, one := range n.byAge(s.limit) {
		h := one.held.Value()
		if h == nil {
			continue
		}
		if p := h.Policy(); !one.fits(s.limit) && !p.Omitted {
			h.policy.Store(p.WithoutRules())
			n.omits = true
			changed = append(changed, h)
		}
	}
	return changed
}

func (s *Store) fitting(name string) []*Held {
	n := s.namespaces[name]
	if n == nil || !n.omits {
		return nil
	}
	var fitting []*Held
	omits := false
	for _, one := range n.byAge(s.limit) {
		if h := one.held.Value(); h != nil && h.Policy().Omitted {
			omits = true
			if one.fits(s.limit) {
				fitting = append(fitting, h)
			}
		}
	}
	n.omits = omits
	return fitting
}

func (n *namespace) remove(name string) {
	n.size -= n.policies[name].size
	delete(n.policies, name)
}

// aged is a policy with what those take that are older and fit.
type aged struct {
	entry
	name  string
	older int
}

func (a *aged) fits(limit int) bool { return a.older+a.size <= limit }

// byAge returns the policies, the oldest first. Those that nothing holds are forgotten.
func (n *namespace) byAge(limit int) []aged {
	var all []aged
	for name, e := range n.policies {
		if e.held.Value() == nil {
			n.remove(name)
			continue
		}
		all = append(all, aged{entry: e, name: name})
	}
	slices.SortFunc(all, func(a, b aged) int { return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.name, b.name)) })
	sum := 0
	for i := range all {
		all[i].older = sum
		if all[i].fits(limit) {
			sum += all[i].size
		}
	}
	return all
}
