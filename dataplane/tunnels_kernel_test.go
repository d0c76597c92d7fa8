package dataplane

import (
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// A pod is no node: it sends no frames by the nodes' tunnels, neither to its own node nor to
// another, and so doesn't speak as a pod that policies allow. Nodes do, and pods may send to the
// same port of others.
func TestPodsSendNoFramesByTunnels(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		network := nodetest.NewNetwork(t, 2)
		network.AddOverlay(t)
		s := newScene(t, backend)
		s.node = network.Nodes[0]
		s.namespace("default", nil)
		s.pod("default", "b", map[string]string{"role": "db"}, "10.244.1.11")
		s.pod("default", "open", nil, "10.244.1.12")
		s.host("far", network.Nodes[1].AddPod(t, "10.244.2.10"))
		s.host("stranger", network.AddHost(t))
		s.apply(`
metadata: {name: from-far, namespace: default}
spec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 10.244.2.0/24}}]}]}
`)
		s.sync()
		s.requireTCP(false, "open", "b", 80)
		require.True(t, s.hosts["far"].TCP(s.hosts["b"].Addrs[0], 80, answerWithin))

		p := newPost(s, "b", "open", "far", "stranger")
		// frame is one of a node to another, with a packet from a pod to a pod.
		frame := func(node *nodetest.Node, from, to string) []byte {
			inner := nodetest.Packet{
				From: netip.MustParseAddr(from), To: netip.MustParseAddr(to), Protocol: unix.IPPROTO_UDP, Hops: 64,
				Payload: nodetest.UDP(4000, 80, p.payload(64)),
			}
			mac := node.MAC(t, nodetest.OverlayName)
			return nodetest.VXLAN(nodetest.OverlayVNI, nodetest.Ethernet(net.HardwareAddr{2, 0, 0, 0, 0, 9}, mac, inner.EtherType(), inner.Bytes()))
		}
		forge := func(about string, to string, passes bool, at netip.Addr, payload []byte) {
			packet := nodetest.Packet{From: s.hosts["open"].Addrs[0], To: at, Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(4001, nodetest.OverlayPort, payload)}
			p.sendUnpacked("open", to, p.bridge, passes, packet, about)
		}
		for _, at := range []netip.Addr{s.node.Addrs[0], nodetest.UnderlayAddrs(1)[0]} {
			forge("as another node's pod, to this node", "b", false, at, frame(s.node, "10.244.2.10", "10.244.1.11"))
		}
		forge("as this node's pod, to another node", "far", false, nodetest.UnderlayAddrs(2)[0], frame(network.Nodes[1], "10.244.1.11", "10.244.2.10"))
		forge("to no node", "stranger", true, s.hosts["stranger"].Addrs[0], frame(s.node, "10.244.2.10", "10.244.1.11"))
		p.requireDelivery()
		require.True(t, s.node.Ping(nodetest.OverlayAddr(2), answerWithin), "from node to node")
		require.True(t, network.Nodes[1].Ping(nodetest.OverlayAddr(1), answerWithin), "from node to node")
	})
}
