package node

import (
	"net/netip"

	"k8s.io/apimachinery/pkg/types"
)

// The status of a pod may show an address that no pod can have, or one of a node. Such an
// address is left out, and everything else goes on: no set has it, and no rule where it can't
// be a pod's or is this node's. The
// agent of the pod's node says so; the other agents leave it out in silence.

// BarOwnAddresses keeps the node's own addresses from being those of a pod: isolation of
// such a pod would cut the node off from itself. IPVS's addresses of Services are among
// them.
func (m *Model) BarOwnAddresses(own map[netip.Addr]struct{}) {
	m.change(func() {
		for _, pod := range m.addresses.Bar(own) {
			m.place(pod)
		}
	})
}

// OddPod is a pod of this node whose status shows addresses that are left out.
type OddPod struct {
	UID   types.UID
	Shows string // the addresses, each with what is wrong with it
}

// OddPods returns the pods of this node whose status shows addresses that are left out.
func (m *Model) OddPods() map[types.NamespacedName]OddPod {
	m.mu.Lock()
	defer m.mu.Unlock()
	odd := map[types.NamespacedName]OddPod{}
	for key, pod := range m.sandboxes.seen {
		shows := pod.Unusable
		for _, addr := range pod.Addrs {
			node := m.addresses.NodeOf(addr, m.addresses.Get(key))
			switch {
			case m.addresses.Barred(addr):
				shows += separated(shows, addr.String()+" (the node's own)")
			case node != "":
				shows += separated(shows, addr.String()+" (node "+node+"'s)")
			}
		}
		if shows != "" {
			odd[key] = OddPod{pod.UID, shows}
		}
	}
	return odd
}

// separated returns text with a comma before it, where something comes before.
func separated(before, text string) string {
	if before == "" {
		return text
	}
	return ", " + text
}
