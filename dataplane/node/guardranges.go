package node

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/policy"
)

// unguarded is what the guard doesn't cover, at one revision of the model.
type unguarded struct {
	revision uint64
	text     string // empty for nothing
}

// OutsideRanges names a pod of this node that has an address outside of the guarded
// ranges, and says how many there are. It is empty where there is none.
func (m *Model) OutsideRanges() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.outside.revision == m.revision {
		return m.outside.text
	}
	m.outside = unguarded{revision: m.revision}
	var first *policy.Pod
	var at netip.Addr
	pods := 0
	for _, pod := range m.local {
		i := slices.IndexFunc(pod.Addrs, func(addr netip.Addr) bool { return !m.guard.covers(addr) })
		if i < 0 {
			continue
		}
		pods++
		if first == nil || pod.Key().String() < first.Key().String() {
			first, at = pod, pod.Addrs[i]
		}
	}
	if pods > 0 {
		m.outside.text = fmt.Sprintf("%d of %d pods have an address outside of the Node's podCIDRs, pod %s for one (%s)", pods, len(m.local), first.Key(), at)
	}
	return m.outside.text
}
