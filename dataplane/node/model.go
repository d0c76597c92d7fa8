package node

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/conntrack"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policystore"
	"github.com/moat-dev/moat/dataplane/selector"
)

// Model is what the agent has seen of the cluster. Informers write it, the sync
// loop reads it; it is safe for use by both at once.
type Model struct {
	node    string
	Changed chan struct{} // holds one signal: something may have changed

	// contested holds one signal: several pods show one address.
	contested chan struct{}

	mu        sync.Mutex
	addresses *selector.Addresses
	local     map[types.NamespacedName]*policy.Pod // those that policies can select
	digests   map[types.NamespacedName]string      // digestOf those
	policies  map[string]map[string]*policy.Policy // by namespace and name
	index     *selector.Index
	sandboxes sandboxes
	guard     startGuard
	spoofers  spoofers
	sources   bool // the rules depend on which sandboxes run
	outside   unguarded

	// revision grows with every change that the rules depend on: a pod of this node,
	// or a policy that selects one. Remote pods and namespaces change sets only.
	revision uint64

	// released are the addresses that pods of this node had, and that takeReleased
	// has not returned.
	released conntrack.Addresses

	event time.Time // when the first event came that takeEvent has not returned
}

// New returns the model of a node of which nothing is known yet.
func New(node string) *Model {
	return &Model{
		node:      node,
		Changed:   make(chan struct{}, 1),
		contested: make(chan struct{}, 1),
		addresses: selector.NewAddresses(),
		local:     map[types.NamespacedName]*policy.Pod{},
		digests:   map[types.NamespacedName]string{},
		policies:  map[string]map[string]*policy.Policy{},
		index:     selector.NewIndex(),
		sandboxes: newSandboxes(node),
		spoofers:  spoofers{},
		released:  conntrack.Addresses{},
		revision:  1,
	}
}

// change makes one change under the lock and signals it, if it concerns the rules or
// a set that this node needs. Most changes of a large cluster don't.
func (m *Model) change(do func()) {
	m.mu.Lock()
	before, orphans := m.revision, m.sandboxes.orphans.revision
	do()
	if m.sandboxes.orphans.revision != orphans {
		m.revision++
	}
	concerns := m.revision != before || m.index.Changed()
	if concerns && m.event.IsZero() {
		m.event = time.Now()
	}
	m.mu.Unlock()
	if concerns {
		m.Poke()
	}
}

// Poke wakes the sync loop.
func (m *Model) Poke() {
	select {
	case m.Changed <- struct{}{}:
	default:
	}
}

// TakeEvent returns when the first event came since it was asked last; zero if
// there was none.
func (m *Model) TakeEvent() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	event := m.event
	m.event = time.Time{}
	return event
}

// Node is that of the node.
func (m *Model) Node() string { return m.node }

// Ranges returns the ranges of pods of each node of which they are known.
func (m *Model) Ranges() policy.Ranges {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.addresses.Ranges()
}

// Routed returns how many addresses of pods that the API lost the network still routes to
// this node.
func (m *Model) Routed() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.sandboxes.orphans.routed)
}

// Present returns the model's present revision.
func (m *Model) Present() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision
}

// Members calls f with the index of the sets' members while the model is locked: f must not
// ask the model for anything, and informers wait for it.
func (m *Model) Members(f func(*selector.Index)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(m.index)
}

// Peers calls f with what is known of peers while the model is locked: f must not ask the
// model for anything, nor keep the peers, and informers wait for it.
func (m *Model) Peers(f func(Peers)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f(Peers{m})
}

// Peers are what a verdict asks of the cluster.
type Peers struct{ model *Model }

// Owners returns which pods have an address.
func (p Peers) Owners(addr netip.Addr) policy.Owners { return p.model.addresses.Owners(addr) }

// Namespaces returns the namespaces with their labels.
func (p Peers) Namespaces() policy.Namespaces { return p.model.index.Namespaces() }

// SetPod takes a pod as the API shows it.
func (m *Model) SetPod(pod *policy.Pod) {
	m.change(func() { m.enter(m.sandboxes.see(pod)) })
}

// enter adds a pod or replaces the one of that name.
func (m *Model) enter(pod *policy.Pod) {
	defer m.releasing(pod.Key())()
	before := m.addresses.Get(pod.Key())
	affected := m.addresses.Set(pod)
	for _, pod := range affected {
		m.place(pod)
	}
	m.contest(len(affected))
	m.followForeign(before, pod)
}

// DeletePod notes that the API shows a pod no more. The pod may still run.
func (m *Model) DeletePod(key types.NamespacedName) {
	m.change(func() {
		m.sandboxes.unsee(key)
		m.put(key)
	})
}

// put enters what is known of a pod, or takes it out where that is nothing.
func (m *Model) put(key types.NamespacedName) {
	if pod := m.sandboxes.pod(key); pod != nil {
		m.enter(pod)
		return
	}
	defer m.releasing(key)()
	before := m.addresses.Get(key)
	affected := m.addresses.Delete(key)
	m.index.DeletePod(key)
	m.setLocal(key, nil)
	for _, pod := range affected {
		m.place(pod)
	}
	m.followForeign(before)
}

// place puts a pod where it belongs, with the addresses that it owns.
func (m *Model) place(pod *policy.Pod) {
	m.index.SetPod(m.addresses.Peer(pod))
	if pod.Node == m.node && pod.Subject {
		m.setLocal(pod.Key(), m.addresses.Subject(pod))
	} else { // it has ended, or was made again elsewhere under the same name
		m.setLocal(pod.Key(), nil)
	}
}

// setLocal replaces a pod of this node; nil if it is none.
func (m *Model) setLocal(key types.NamespacedName, pod *policy.Pod) {
	old := m.local[key]
	if pod == nil {
		delete(m.local, key)
		delete(m.digests, key)
	} else {
		m.local[key] = pod
		if old == nil || old.UID != pod.UID || !maps.Equal(old.Labels, pod.Labels) {
			m.digests[key] = digestOf(pod)
		}
	}
	if (old == nil) != (pod == nil) || old != nil && !sameRules(old, pod) {
		m.revision++
	}
}

// sameRules reports whether two pods are the same for all rules. The runtime doesn't say
// whether a pod may forge packets, which the API does a moment later.
func sameRules(a, b *policy.Pod) bool {
	as := *a
	as.RawSockets = b.RawSockets
	return as.Equal(b)
}

// SetNamespace takes a namespace as the API shows it.
func (m *Model) SetNamespace(n *policy.Namespace) {
	m.change(func() {
		m.index.SetNamespace(n.Name, n.Labels)
		if m.spoofers.set(n.Name, n.Labels) && m.runsIn(n.Name) {
			m.sandboxesMoved()
		}
	})
}

// DeleteNamespace forgets a namespace.
func (m *Model) DeleteNamespace(key types.NamespacedName) {
	m.change(func() {
		m.index.DeleteNamespace(key.Name)
		delete(m.spoofers, key.Name)
	})
}

// SetPolicy takes a policy as the API shows it.
func (m *Model) SetPolicy(p *policy.Policy) { m.Hold(policystore.Hold(p)) }

// Hold enters a policy as it is held, or replaces the one of its name.
func (m *Model) Hold(h *policystore.Held) {
	m.change(func() { m.enterPolicy(h.Policy()) })
}

// HoldOtherwise follows a policy of which more or less is held than before. One that the
// model doesn't have, or not in this version, comes or came by its watch.
func (m *Model) HoldOtherwise(h *policystore.Held) {
	m.change(func() {
		p := h.Policy()
		if old := m.policies[p.Namespace][p.Name]; old != nil && old.UID == p.UID && old.Generation == p.Generation {
			m.enterPolicy(p)
		}
	})
}

func (m *Model) enterPolicy(p *policy.Policy) {
	inNamespace := m.policies[p.Namespace]
	if inNamespace == nil {
		inNamespace = map[string]*policy.Policy{}
		m.policies[p.Namespace] = inNamespace
	}
	old := inNamespace[p.Name]
	inNamespace[p.Name] = p
	if m.selectsLocal(old) || m.selectsLocal(p) {
		m.revision++
	}
}

// DeletePolicy forgets a policy.
func (m *Model) DeletePolicy(key types.NamespacedName) {
	m.change(func() {
		inNamespace := m.policies[key.Namespace]
		if m.selectsLocal(inNamespace[key.Name]) {
			m.revision++
		}
		delete(inNamespace, key.Name)
		if len(inNamespace) == 0 {
			delete(m.policies, key.Namespace)
		}
	})
}

// selectsLocal reports whether the policy, which may be nil, selects a pod of this
// node.
func (m *Model) selectsLocal(p *policy.Policy) bool {
	if p == nil {
		return false
	}
	for _, pod := range m.local {
		if p.Selects(pod) {
			return true
		}
	}
	return false
}

// View is what the rules of this node depend on, at one revision. It is immutable.
type View struct {
	Revision  uint64
	Local     []*policy.Pod    // the node's pods
	Policies  []*policy.Policy // of the namespaces of these pods
	Endpoints []policy.Endpoint
	Selecting []*policy.Policy // of these policies, those that select one of the pods
	Guard     compile.Guard
	Gone      int                  // how many of the endpoints, the last ones, are orphans
	Seen      map[types.UID]string // seenPods
	Sandboxes []sandboxView        // that run
	Exempt    map[string]bool      // namespaces of this node's pods that may send from any address
}

// Addrs returns the addresses of the node's pods.
func (v *View) Addrs() []netip.Addr {
	var addrs []netip.Addr
	for _, pod := range v.Local {
		addrs = append(addrs, pod.Addrs...)
	}
	return addrs
}

// View returns the present view, or nil if nothing that it depends on has
// changed since the given revision.
func (m *Model) View(since uint64) *View {
	m.mu.Lock()
	if m.revision == since {
		m.mu.Unlock()
		return nil
	}
	v := &View{Revision: m.revision}
	local, policies := m.localPods()
	v.Local, v.Guard = local, m.guard.guardOf(local)
	gone := m.sandboxes.orphans.endpoints(m.node)
	digests := maps.Clone(m.digests)
	v.Sandboxes, v.Exempt = m.runningSandboxes(), map[string]bool{}
	for _, pod := range local {
		v.Exempt[pod.Namespace] = m.spoofers.exempt(pod.Namespace)
	}
	m.mu.Unlock()

	// Pods and policies are immutable, so the rest needs no lock.
	slices.SortFunc(policies, func(a, b *policy.Policy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	v.Gone = len(gone)
	v.enforce(policies, gone)
	v.Seen = seenPods(local, digests, v.Selecting)
	return v
}

// With returns the view with other policies.
func (v *View) With(policies []*policy.Policy) View {
	other := *v
	other.enforce(policies, v.Endpoints[len(v.Endpoints)-v.Gone:])
	return other
}

func (v *View) enforce(policies []*policy.Policy, gone []policy.Endpoint) {
	v.Policies = policies
	v.Endpoints = append(policy.Endpoints(v.Local, policies), gone...)
	v.Selecting = policy.Selecting(v.Local, policies)
}

// Renew makes the next view differ, so that the rules are compiled again.
func (m *Model) Renew() { m.change(func() { m.revision++ }) }

// localPods returns the pods of this node and the policies of their namespaces.
func (m *Model) localPods() ([]*policy.Pod, []*policy.Policy) {
	local := slices.Collect(maps.Values(m.local))
	var policies []*policy.Policy
	seen := map[string]bool{}
	for _, pod := range local {
		if !seen[pod.Namespace] {
			seen[pod.Namespace] = true
			policies = slices.AppendSeq(policies, maps.Values(m.policies[pod.Namespace]))
		}
	}
	return local, policies
}

// Count implements budget.Pods.
func (m *Model) Count(selected *policy.PodPeer, most int) (addresses, ports int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.index.Count(selected, most)
}

// Concerns reports whether a policy selects a pod of this node.
func (m *Model) Concerns(p *policy.Policy) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.selectsLocal(p)
}

// WithRawSockets returns the pods of this node that may forge packets.
func (m *Model) WithRawSockets() []*policy.Pod {
	m.mu.Lock()
	defer m.mu.Unlock()
	var pods []*policy.Pod
	for _, pod := range m.local {
		if pod.RawSockets {
			pods = append(pods, pod)
		}
	}
	return pods
}

// At returns a view's revision, which is zero for none.
func (v *View) At() uint64 {
	if v == nil {
		return 0
	}
	return v.Revision
}
