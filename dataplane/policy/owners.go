package policy

import (
	"net/netip"
	"slices"
)

// Ranges are the ranges from which the pods of each node get their addresses
// (spec.podCIDRs of its Node), by the node's name. The ranges of a node that isn't in it
// aren't known.
type Ranges map[string][]netip.Prefix

// Holds reports whether an address is known to be one of the node's.
func (r Ranges) Holds(node string, addr netip.Addr) bool {
	return slices.ContainsFunc(r[node], func(prefix netip.Prefix) bool { return prefix.Contains(addr) })
}

// Owners are the pods that show an address. The zero value is no pod.
type Owners struct {
	// All are the pods whose policies hold for the address: every pod that shows it. So
	// neither the status of another pod nor its own deletion ends a pod's isolation.
	All []*Pod

	// Peer is the pod that selectors see at the address. It is nil where it is unknown which
	// pod that is. Then selectors see no pod there, and allow nothing.
	Peer *Pod
}

// OwnersOf returns the owners of an address among pods. The peer is the pod that alone
// shows the address. Of several, a pod whose node has the address in its ranges comes
// before pods of other nodes: an address of another node's ranges is more likely wrong.
// Then a pod that stays comes before one that is Terminating: the network hands an address
// out again once the old pod's network is gone.
//
// An address that hostNetwork pods show is their node's, and these pods take part in that
// choice. No selector sees a node, so where one of them is chosen the address has no peer. The
// policies of other pods that show the address still hold: a status doesn't end isolation.
//
// Several pods are left where a status is out of date, such as after a restart of the
// node. Then the address has no peer.
func OwnersOf(addr netip.Addr, pods []*Pod, ranges Ranges) Owners {
	var owners Owners
	var candidates []*Pod
	for _, pod := range pods {
		isPods := slices.Contains(pod.Addrs, addr)
		if isPods {
			owners.All = append(owners.All, pod)
		}
		if isPods || slices.Contains(pod.NodeAddrs, addr) {
			candidates = append(candidates, pod)
		}
	}
	candidates = preferred(candidates, func(pod *Pod) bool { return ranges.Holds(pod.Node, addr) })
	candidates = preferred(candidates, func(pod *Pod) bool { return !pod.Terminating })
	if len(candidates) == 1 && slices.Contains(candidates[0].Addrs, addr) {
		owners.Peer = candidates[0]
	}
	return owners
}

// preferred returns the pods that accept accepts, or all where it accepts none.
func preferred(pods []*Pod, accept func(*Pod) bool) []*Pod {
	if len(pods) < 2 {
		return pods
	}
	accepted := slices.DeleteFunc(slices.Clone(pods), func(pod *Pod) bool { return !accept(pod) })
	if len(accepted) == 0 {
		return pods
	}
	return accepted
}
