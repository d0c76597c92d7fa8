package selector

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Addresses keeps track of which pods own which addresses, where more than one
// pod shows an address: see policy.Owners. It must not be used by several
// goroutines at once.
type Addresses struct {
	pods    map[types.NamespacedName]*policy.Pod
	showing owners[*policy.Pod]
	barred  map[netip.Addr]struct{}
}

// NewAddresses returns one without pods.
func NewAddresses() *Addresses {
	return &Addresses{pods: map[types.NamespacedName]*policy.Pod{}, showing: newOwners[*policy.Pod]()}
}

// Get returns the pod of that name as it was set last, or nil.
func (a *Addresses) Get(key types.NamespacedName) *policy.Pod { return a.pods[key] }

// Set adds a pod or replaces the one of that name. It returns every pod whose
// ownership may have changed, the given one first.
func (a *Addresses) Set(pod *policy.Pod) []*policy.Pod {
	affected := append([]*policy.Pod{pod}, a.Delete(pod.Key())...)
	a.pods[pod.Key()] = pod
	for _, addr := range pod.Addrs {
		affected = append(affected, a.showing.all(addr)...)
		a.showing.add(addr, pod)
	}
	return affected
}

// Delete forgets a pod and returns the other pods whose ownership may have
// changed.
func (a *Addresses) Delete(key types.NamespacedName) []*policy.Pod {
	pod := a.pods[key]
	if pod == nil {
		return nil
	}
	delete(a.pods, key)
	var affected []*policy.Pod
	for _, addr := range pod.Addrs {
		a.showing.remove(addr, pod)
		affected = append(affected, a.showing.all(addr)...)
	}
	return affected
}

// Bar replaces the addresses that no pod owns, whichever pod shows them. It returns every
// pod whose ownership may have changed.
func (a *Addresses) Bar(barred map[netip.Addr]struct{}) []*policy.Pod {
	var affected []*policy.Pod
	for _, pair := range [][2]map[netip.Addr]struct{}{{a.barred, barred}, {barred, a.barred}} {
		for addr := range pair[0] {
			if _, both := pair[1][addr]; !both {
				affected = append(affected, a.showing.all(addr)...)
			}
		}
	}
	a.barred = barred
	return affected
}

// Barred reports whether no pod owns the address, whichever pod shows it.
func (a *Addresses) Barred(addr netip.Addr) bool {
	_, is := a.barred[addr]
	return is
}

// Owners returns the pods that own an address: see policy.Owners.
func (a *Addresses) Owners(addr netip.Addr) []*policy.Pod {
	if a.Barred(addr) {
		return nil
	}
	return policy.Owners(addr, a.showing.all(addr))
}

// Showing returns the pods that show an address, whoever owns it.
func (a *Addresses) Showing(addr netip.Addr) []*policy.Pod { return a.showing.all(addr) }

// Shown returns every address that a pod shows, in no order.
func (a *Addresses) Shown() iter.Seq[netip.Addr] { return maps.Keys(a.showing.first) }

// Subject returns the pod with the addresses at which its policies hold.
func (a *Addresses) Subject(pod *policy.Pod) *policy.Pod {
	return a.withAddrs(pod, func(owners []*policy.Pod) bool { return slices.Contains(owners, pod) })
}

// Peer returns the pod with the addresses at which the rules of others see it.
func (a *Addresses) Peer(pod *policy.Pod) *policy.Pod {
	return a.withAddrs(pod, func(owners []*policy.Pod) bool { return len(owners) == 1 && owners[0] == pod })
}

// withAddrs returns the pod itself where all of its addresses count, else a copy
// with those that do.
func (a *Addresses) withAddrs(pod *policy.Pod, counts func(owners []*policy.Pod) bool) *policy.Pod {
	isLost := func(addr netip.Addr) bool {
		return a.Barred(addr) || a.showing.shared(addr) && !counts(policy.Owners(addr, a.showing.all(addr)))
	}
	if !slices.ContainsFunc(pod.Addrs, isLost) {
		return pod
	}
	part := *pod
	part.Addrs = slices.DeleteFunc(slices.Clone(pod.Addrs), isLost)
	return &part
}
