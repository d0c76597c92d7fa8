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
// pod shows an address: see policy.OwnersOf. It must not be used by several
// goroutines at once.
type Addresses struct {
	pods    map[types.NamespacedName]*policy.Pod
	showing owners[*policy.Pod]
	nodes   owners[*policy.Pod] // hostNetwork pods, at the addresses of their nodes
	barred  map[netip.Addr]struct{}
	ranges  policy.Ranges
}

// NewAddresses returns an Addresses without pods.
func NewAddresses() *Addresses {
	return &Addresses{
		pods:    map[types.NamespacedName]*policy.Pod{},
		showing: newOwners[*policy.Pod](), nodes: newOwners[*policy.Pod](),
		ranges: policy.Ranges{},
	}
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
	for _, addr := range pod.NodeAddrs {
		affected = append(affected, a.showing.all(addr)...)
		a.nodes.add(addr, pod)
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
	for _, addr := range pod.NodeAddrs {
		a.nodes.remove(addr, pod)
		affected = append(affected, a.showing.all(addr)...)
	}
	return affected
}

// Bar replaces the barred addresses: no pod owns them, whichever pod shows them. It returns
// every pod whose ownership may have changed.
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

// Owners returns the pods that own an address: see policy.OwnersOf.
func (a *Addresses) Owners(addr netip.Addr) policy.Owners {
	if a.Barred(addr) {
		return policy.Owners{}
	}
	return policy.OwnersOf(addr, a.claiming(addr), a.ranges)
}

// claiming returns the pods that show an address as theirs or as their node's.
func (a *Addresses) claiming(addr netip.Addr) []*policy.Pod {
	return append(a.showing.all(addr), a.nodes.all(addr)...)
}

// disputed reports whether an address that a pod shows is shown by another pod too, as its
// own or as its node's.
func (a *Addresses) disputed(addr netip.Addr) bool {
	return a.showing.shared(addr) || a.nodes.has(addr)
}

// disputes returns the addresses that are disputed, each with the pods that show it.
func (a *Addresses) disputes() iter.Seq2[netip.Addr, []*policy.Pod] {
	return func(yield func(netip.Addr, []*policy.Pod) bool) {
		for addr := range a.showing.more {
			if !yield(addr, a.claiming(addr)) {
				return
			}
		}
		for addr := range a.nodes.first {
			if a.showing.has(addr) && !a.showing.shared(addr) && !yield(addr, a.claiming(addr)) {
				return
			}
		}
	}
}

// SetRanges takes the ranges of a node, which may be none. It returns every pod whose
// ownership may have changed.
func (a *Addresses) SetRanges(node string, ranges []netip.Prefix) []*policy.Pod {
	old, known := a.ranges[node]
	a.ranges[node] = ranges
	if known && slices.Equal(old, ranges) {
		return nil
	}
	return a.contestedBy(node)
}

// ForgetRanges makes the ranges of a node unknown. The node must have no contested address.
func (a *Addresses) ForgetRanges(node string) { delete(a.ranges, node) }

// Ranges returns what is known of the nodes' ranges. It must not be changed.
func (a *Addresses) Ranges() policy.Ranges { return a.ranges }

// Contested returns the nodes of pods that show an address which a pod of another node
// shows too, as its own or as its node's: their ranges decide which of the pods is the peer.
func (a *Addresses) Contested() map[string]struct{} {
	nodes := map[string]struct{}{}
	for _, claiming := range a.disputes() {
		for _, pod := range claiming {
			if pod.Node != claiming[0].Node {
				nodes[claiming[0].Node], nodes[pod.Node] = struct{}{}, struct{}{}
			}
		}
	}
	return nodes
}

// contestedBy returns the pods that show a disputed address which a pod of the node shows
// too.
func (a *Addresses) contestedBy(node string) []*policy.Pod {
	var pods []*policy.Pod
	for addr, claiming := range a.disputes() {
		if slices.ContainsFunc(claiming, func(pod *policy.Pod) bool { return pod.Node == node }) {
			pods = append(pods, a.showing.all(addr)...)
		}
	}
	return pods
}

// Showing returns the pods that show an address, also those that don't own it.
func (a *Addresses) Showing(addr netip.Addr) []*policy.Pod { return a.showing.all(addr) }

// NodeOf returns the node that has an address which a pod shows as its own, where selectors
// don't see the pod because of the node. Otherwise it returns the empty string.
func (a *Addresses) NodeOf(addr netip.Addr, pod *policy.Pod) string {
	if !a.nodes.has(addr) || a.Owners(addr).Peer == pod {
		return ""
	}
	return a.nodes.first[addr].Node
}

// Shown returns every address that pods show, in no order.
func (a *Addresses) Shown() iter.Seq[netip.Addr] { return maps.Keys(a.showing.first) }

// Subject returns the pod with the addresses at which its policies hold: see
// policy.Owners.
func (a *Addresses) Subject(pod *policy.Pod) *policy.Pod {
	return withoutAddrs(pod, a.Barred)
}

// Peer returns the pod with the addresses at which other pods' rules see it.
func (a *Addresses) Peer(pod *policy.Pod) *policy.Pod {
	return withoutAddrs(pod, func(addr netip.Addr) bool {
		return a.Barred(addr) || a.disputed(addr) && a.Owners(addr).Peer != pod
	})
}

// withoutAddrs returns the pod without the addresses that are lost: the pod itself where none
// is, otherwise a copy.
func withoutAddrs(pod *policy.Pod, isLost func(netip.Addr) bool) *policy.Pod {
	if !slices.ContainsFunc(pod.Addrs, isLost) {
		return pod
	}
	part := *pod
	part.Addrs = slices.DeleteFunc(slices.Clone(pod.Addrs), isLost)
	return &part
}
