package cluster

import (
	"testing"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// RemoveRules removes every trace of Moat from the node with "moat agent cleanup".
// The node's agent must have stopped.
func (n *Node) RemoveRules(t testing.TB) {
	t.Helper()
	n.Run(t, moatBinary(t), "agent", "cleanup")
}

// Rules returns what is in the node's mangle tables and sets.
func (n *Node) Rules(t testing.TB, backend iptables.Backend) string {
	t.Helper()
	ipv6 := Program(backend, "ip6tables")
	return n.Run(t, string(backend)+"-save", "-t", "mangle") + n.Run(t, ipv6+"-save", "-t", "mangle") + n.Run(t, "ipset", "save")
}
