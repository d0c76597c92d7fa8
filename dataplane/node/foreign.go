package node

import (
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/policy"
)

// A network with an IPAM of its own may give pods of other nodes addresses of this
// Node's podCIDRs. The guard spares them, since no policy closes them here: the model
// says which addresses they are, and the node's routes say by which interfaces they are
// reached. Behind any other interface such an address is closed as before. So it is at
// once where the network gives it to a new pod of this node, which the API still shows
// elsewhere: that pod is behind an interface of its own.

// followForeign looks again at the addresses of pods that came, changed or went. Some of
// them may be nil.
func (m *Model) followForeign(pods ...*policy.Pod) {
	for _, pod := range pods {
		if pod == nil {
			continue
		}
		for _, addr := range pod.Addrs {
			if m.guard.covers(addr) {
				m.setForeign(addr)
			}
		}
	}
}

// findForeign looks at all addresses, after the Node got other podCIDRs.
func (m *Model) findForeign() {
	m.guard.foreign = map[netip.Addr]struct{}{}
	for addr := range m.addresses.Shown() {
		if m.guard.covers(addr) {
			m.setForeign(addr)
		}
	}
}

// setForeign notes whether an address of the podCIDRs is one of other nodes' pods alone.
// A pod of this node has it until the API or the runtime says that it is gone,
// whatever other pod shows it.
func (m *Model) setForeign(addr netip.Addr) {
	pods := m.addresses.Showing(addr)
	is := len(pods) > 0 && !slices.ContainsFunc(pods, func(pod *policy.Pod) bool { return pod.Node == m.node || pod.Node == "" })
	if _, was := m.guard.foreign[addr]; was == is {
		return
	}
	if is {
		m.guard.foreign[addr] = struct{}{}
	} else {
		delete(m.guard.foreign, addr)
	}
	if m.guard.on {
		m.revision++
	}
}

// covers reports whether the address is one of the Node's podCIDRs.
func (g *startGuard) covers(addr netip.Addr) bool {
	return slices.ContainsFunc(g.podCIDRs, func(cidr netip.Prefix) bool { return cidr.Contains(addr) })
}

// SparesForeign reports whether pods of other nodes pass the guard.
func (m *Model) SparesForeign() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.guard.on && len(m.guard.foreign) > 0
}
