package nodetest_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

func TestNodesRouteToEachOther(t *testing.T) {
	nodetest.RequireKernel(t)
	network := nodetest.NewNetwork(t, 3)
	world := network.AddHost(t)
	hosts := []*nodetest.Host{
		world,
		network.Nodes[0].AddPod(t, "10.244.1.10", "fd00:10:244:1::10"),
		network.Nodes[0].AddPod(t, "10.244.1.11", "fd00:10:244:1::11"),
		network.Nodes[1].AddPod(t, "10.244.2.10", "fd00:10:244:2::10"),
		network.Nodes[2].AddPod(t, "10.244.3.10"),
	}
	for _, from := range hosts {
		for _, to := range hosts {
			for _, addr := range to.Addrs {
				if from.Addr(addr).IsValid() {
					require.True(t, from.Ping(addr, time.Second), "ping %s to %s", from.Addrs, addr)
				}
			}
		}
		for _, addr := range nodetest.UnderlayAddrs(2) {
			if from.Addr(addr).IsValid() {
				require.True(t, from.Ping(addr, time.Second), "ping %s to node %s", from.Addrs, addr)
			}
		}
	}

	network.Nodes[1].RemovePod(t, hosts[3])
	require.False(t, world.Ping(hosts[3].Addrs[0], 50*time.Millisecond), "a removed pod is gone")
	network.Nodes[1].AddPod(t, "10.244.2.10")
	require.True(t, world.Ping(hosts[3].Addrs[0], time.Second), "its address can have a new owner")
}
