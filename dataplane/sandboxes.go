package dataplane

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
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
	}
}

// mirrorAnnotation holds, in the API's copy of a static pod, the uid by which the
// runtime knows it. The kubelet runs no other pod that has it.
const mirrorAnnotation = corev1.MirrorPodAnnotationKey

// runtimeUID is the uid by which the runtime knows a pod.
func runtimeUID(pod *corev1.Pod) types.UID {
	if uid, static := pod.Annotations[mirrorAnnotation]; static {
		return types.UID(uid)
	}
	return pod.UID
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
	s.seen[key] = pod
	if living, ok := s.living[key]; ok && living.UID == pod.UID {
		living.ahead = false
		s.living[key] = living
	}
	if gone, ok := s.gone[key]; ok && gone.UID != pod.UID {
		delete(s.gone, key)
	}
	return s.pod(key)
}

// unsee forgets a pod that the API has no more, and its sandbox: what it had is
// closed by the guard. What may be left of that name is a pod of which the API has
// said nothing yet.
func (s *sandboxes) unsee(key types.NamespacedName) {
	living, lives := s.living[key]
	if lives && s.knows(&living.Sandbox) {
		delete(s.living, key)
	}
	delete(s.seen, key)
	delete(s.gone, key)
}

// start takes a sandbox that runs from now on.
func (s *sandboxes) start(sandbox podstart.Sandbox) {
	key := sandbox.Key()
	s.living[key] = livingSandbox{sandbox, !s.knows(&sandbox)}
	delete(s.gone, key)
}

// stop takes a sandbox that runs no more.
func (s *sandboxes) stop(sandbox podstart.Sandbox) {
	key := sandbox.Key()
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

// replace takes all sandboxes that run and returns the pods that may be concerned.
func (s *sandboxes) replace(running []podstart.Sandbox) []types.NamespacedName {
	var concerned []types.NamespacedName
	for key := range s.living {
		concerned = append(concerned, key)
	}
	clear(s.living)
	for _, sandbox := range running {
		s.start(sandbox)
		concerned = append(concerned, sandbox.Key())
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
