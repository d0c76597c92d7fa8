package node

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/policy"
)

// sandboxes lays what the node's container runtime says of its pods over what the
// API says: the runtime knows a pod's addresses seconds before the API does, and
// that they are free before the API says so. It is empty where no runtime is
// connected. The model's lock guards it.
type sandboxes struct {
	node   string
	seen   map[types.NamespacedName]*policy.Pod // the API's pods of this node
	living map[types.NamespacedName]livingSandbox
	gone   map[types.NamespacedName]podstart.Sandbox // the last that ended, of pods that are seen

	// connected says that a runtime tells which pods run.
	connected bool
	orphans   orphans
}

// livingSandbox is a sandbox that runs. It is ahead while the API shows no pod of
// that uid, or still its predecessor of that name.
type livingSandbox struct {
	podstart.Sandbox
	ahead bool
}

func newSandboxes(node string) sandboxes {
	return sandboxes{
		node:   node,
		seen:   map[types.NamespacedName]*policy.Pod{},
		living: map[types.NamespacedName]livingSandbox{},
		gone:   map[types.NamespacedName]podstart.Sandbox{},

		orphans: newOrphans(),
	}
}

// see takes a pod as the API shows it and returns it with the addresses that the
// runtime knows.
func (s *sandboxes) see(pod *policy.Pod) *policy.Pod {
	key := pod.Key()
	if pod.Node != s.node { // made again elsewhere, or not scheduled yet
		s.unsee(key)
		if sooner := s.pod(key); sooner != nil {
			return sooner
		}
		return pod
	}
	if before, known := s.seen[key]; known && before.UID != pod.UID {
		s.leave(before)
	}
	s.seen[key] = pod
	s.comeBack(pod)
	if living, ok := s.living[key]; ok && living.UID == pod.UID {
		living.ahead = false
		s.living[key] = living
	}
	if gone, ok := s.gone[key]; ok && gone.UID != pod.UID {
		delete(s.gone, key)
	}
	return s.pod(key)
}

// unsee forgets a pod that the API has no more. If it still runs it is an orphan. What
// may be left of that name is a pod of which the API has said nothing yet.
func (s *sandboxes) unsee(key types.NamespacedName) {
	if seen, known := s.seen[key]; known {
		s.leave(seen)
	}
	delete(s.seen, key)
	delete(s.gone, key)
}

// leave takes what runs of a pod that the API had, and has no more.
func (s *sandboxes) leave(seen *policy.Pod) {
	key := seen.Key()
	living, lives := s.living[key]
	knowsIt := lives && s.knows(&living.Sandbox)
	if knowsIt {
		delete(s.living, key)
	}
	switch {
	case knowsIt && living.Static: // the kubelet runs it whatever the API has
		living.ahead = true
		s.living[key] = living
	case knowsIt && s.connected:
		s.orphans.keep(living.Sandbox)
	case !s.connected && seen.Subject:
		s.orphans.ask(s.lastAddrs(seen))
	}
}

// lastAddrs returns the addresses that a pod had when the API lost it.
func (s *sandboxes) lastAddrs(seen *policy.Pod) []netip.Addr {
	gone := s.gone[seen.Key()].Addrs
	return slices.DeleteFunc(slices.Clone(seen.Addrs), func(addr netip.Addr) bool { return slices.Contains(gone, addr) })
}

// comeBack takes an orphan as its pod's sandbox again, since the API has the pod again.
func (s *sandboxes) comeBack(pod *policy.Pod) {
	for id, sandbox := range s.orphans.running {
		if sandbox.UID == pod.UID && sandbox.Key() == pod.Key() {
			s.orphans.release(id)
			if other, lives := s.living[pod.Key()]; lives && other.UID != pod.UID {
				s.orphans.keep(other.Sandbox)
			}
			s.living[pod.Key()] = livingSandbox{Sandbox: sandbox}
		}
	}
}

// start takes a sandbox that runs from now on.
func (s *sandboxes) start(sandbox podstart.Sandbox) {
	key := sandbox.Key()
	if before, lives := s.living[key]; lives && before.UID != sandbox.UID && s.connected {
		s.orphans.keep(before.Sandbox)
	}
	s.orphans.reuse(sandbox.Addrs)
	s.living[key] = livingSandbox{sandbox, !s.knows(&sandbox)}
	delete(s.gone, key)
}

// stop takes a sandbox that runs no more.
func (s *sandboxes) stop(sandbox podstart.Sandbox) {
	key := sandbox.Key()
	s.orphans.release(sandbox.ID)
	living, lives := s.living[key]
	if lives && living.ID != sandbox.ID {
		return // another one has taken its place
	}
	delete(s.living, key)
	if lives {
		sandbox = living.Sandbox
	}
	if s.knows(&sandbox) {
		s.gone[key] = sandbox
	}
}

// falseFirst sorts false before true.
var falseFirst = map[bool]int{false: 0, true: 1}

// replace takes all sandboxes that run and returns the pods that may be concerned.
func (s *sandboxes) replace(running []podstart.Sandbox) []types.NamespacedName {
	var concerned []types.NamespacedName
	for key := range s.living {
		concerned = append(concerned, key)
	}
	clear(s.living)
	s.connected = true
	gone := s.orphans.running
	// Of two of one name the one whose pod the API shows comes last, and stays.
	running = slices.Clone(running)
	slices.SortStableFunc(running, func(a, b podstart.Sandbox) int { return falseFirst[s.knows(&a)] - falseFirst[s.knows(&b)] })
	for _, sandbox := range running {
		if _, orphan := gone[sandbox.ID]; orphan {
			continue
		}
		s.start(sandbox)
		concerned = append(concerned, sandbox.Key())
	}
	for id := range gone {
		if !slices.ContainsFunc(running, func(sandbox podstart.Sandbox) bool { return sandbox.ID == id }) {
			s.orphans.release(id)
		}
	}
	return concerned
}

// knows reports whether the API has shown the sandbox's pod.
func (s *sandboxes) knows(sandbox *podstart.Sandbox) bool {
	seen, known := s.seen[sandbox.Key()]
	return known && seen.UID == sandbox.UID
}

// pod returns what is to be enforced under a name, nil for nothing. Where the API
// doesn't know the pod yet, the runtime's word goes: it has no named ports, which
// closes more.
func (s *sandboxes) pod(key types.NamespacedName) *policy.Pod {
	seen, known := s.seen[key]
	living, lives := s.living[key]
	switch {
	case lives && living.ahead:
		return &policy.Pod{
			Namespace: living.Namespace, Name: living.Name, Node: s.node,
			Labels: living.Labels, Addrs: living.Addrs, Subject: true,
		}
	case !known:
		return nil
	case !seen.Subject: // hostNetwork, or ended
		return seen
	case lives && living.UID == seen.UID:
		return withAddrs(seen, living.Addrs)
	}
	free := s.gone[key].Addrs
	if len(free) == 0 {
		return seen
	}
	return withAddrs(seen, slices.DeleteFunc(slices.Clone(seen.Addrs), func(addr netip.Addr) bool {
		return slices.Contains(free, addr)
	}))
}

func withAddrs(pod *policy.Pod, addrs []netip.Addr) *policy.Pod {
	if slices.Equal(pod.Addrs, addrs) {
		return pod
	}
	changed := *pod
	changed.Addrs = addrs
	return &changed
}
