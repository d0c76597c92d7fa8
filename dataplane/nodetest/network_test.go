package nodetest_test

import (
	"fmt"
	"net"
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
					require.True(t, from.Ping(addr, answerWithin), "ping %s to %s", from.Addrs, addr)
				}
			}
		}
		for _, addr := range nodetest.UnderlayAddrs(2) {
			if from.Addr(addr).IsValid() {
				require.True(t, from.Ping(addr, answerWithin), "ping %s to node %s", from.Addrs, addr)
			}
		}
	}

	network.Nodes[1].RemovePod(t, hosts[3])
	require.False(t, world.Ping(hosts[3].Addrs[0], 50*time.Millisecond), "a removed pod is gone")
	network.Nodes[1].AddPod(t, "10.244.2.10")
	require.True(t, world.Ping(hosts[3].Addrs[0], answerWithin), "its address can have a new owner")
}

// A pod that comes doesn't take the others' gateway away from them.
func TestBridgeKeepsItsAddress(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	address := func() (text string) {
		require.NoError(t, node.Do(func() error {
			bridge, err := net.InterfaceByName("cni0")
			text = bridge.HardwareAddr.String()
			return err
		}))
		return text
	}
	before := address()
	for i := range 10 {
		node.AddPod(t, fmt.Sprintf("10.244.1.%d", 10+i))
		require.Equal(t, before, address())
	}
}
