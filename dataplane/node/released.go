package node

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/kernel/conntrack"
)

// releasing remembers the addresses that a pod of this node has. The function that
// it returns notes those that no pod owns afterwards.
func (m *Model) releasing(key types.NamespacedName) func() {
	pod := m.local[key]
	if pod == nil {
		return func() {}
	}
	return func() {
		for _, addr := range pod.Addrs {
			if len(m.addresses.Owners(addr).All) == 0 {
				m.released[addr] = struct{}{}
			}
		}
	}
}

// TakeReleased returns the addresses that were released since it was asked last.
func (m *Model) TakeReleased() conntrack.Addresses {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.released) == 0 {
		return nil
	}
	released := m.released
	m.released = conntrack.Addresses{}
	return released
}

// Unowned leaves out addresses that a pod has again.
func (m *Model) Unowned(addrs conntrack.Addresses) conntrack.Addresses {
	m.mu.Lock()
	defer m.mu.Unlock()
	unowned := conntrack.Addresses{}
	for addr := range addrs {
		if len(m.addresses.Owners(addr).All) == 0 {
			unowned[addr] = struct{}{}
		}
	}
	return unowned
}
