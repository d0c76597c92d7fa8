package nodetest_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// Without rules everything must reach everything: a probe that fails for another
// reason would make every test of a drop pass.
func TestAnOpenNetworkIsOpen(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	hosts := []*nodetest.Host{
		node.AddPod(t, "10.244.1.10", "fd00:10:244:1::10"),
		node.AddPod(t, "10.244.1.11", "fd00:10:244:1::11"),
		node.AddRemote(t, "10.244.2.10", "fd00:10:244:2::10"),
		node.AddRemote(t, "172.17.0.10", "2001:db8:17::10"),
	}
	for _, host := range hosts {
		host.ServeTCP(t, 80)
		host.ServeUDP(t, 53)
	}
	for _, from := range append(hosts, node.Host) {
		for _, to := range hosts {
			for _, addr := range to.Addrs {
				require.True(t, from.Ping(addr, time.Second), "ping %s to %s", from.Addrs, addr)
				require.True(t, from.TCP(addr, 80, time.Second), "tcp %s to %s", from.Addrs, addr)
				require.True(t, from.UDP(addr, 53, time.Second), "udp %s to %s", from.Addrs, addr)
				require.False(t, from.TCP(addr, 81, time.Second), "nobody serves port 81")
			}
		}
	}
}
