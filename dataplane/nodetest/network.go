package nodetest

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// underlayBits are the lengths of the underlay's prefixes.
const (
	underlayBits4 = 24
	underlayBits6 = 64
)

// Network is a number of nodes that reach each other over an underlay and route
// to each other's pods, as Flannel's host-gw does.
//
//	node N: 172.18.0.N, fd00:172:18::N; its pods: 10.244.N.0/24, fd00:10:244:N::/64
type Network struct {
	Nodes []*Node

	fabric *Host // whose bridge is the underlay
	hosts  int
}

// underlayName is the name of the underlay's bridge.
const underlayName = "underlay"

// NewNetwork makes a network of nodes, numbered from 1, without pods. There may be
// 99 at most.
func NewNetwork(t testing.TB, nodes int) *Network {
	t.Helper()
	w := &Network{fabric: newHost(t)}
	require.NoError(t, w.fabric.Do(func() error {
		// The underlay is no node: nothing filters there.
		for _, sysctl := range []string{"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables"} {
			if err := SetSysctl(sysctl, "0"); err != nil {
				return err
			}
		}
		return addBridge(underlayName)
	}))
	for number := 1; number <= nodes; number++ {
		node := newNode(t, number)
		w.attach(t, node.Host, number)
		w.Nodes = append(w.Nodes, node)
	}
	for i, node := range w.Nodes {
		w.routeToPods(t, node.Host, i+1)
	}
	return w
}

// AddHost adds a host that is no node. It can reach the nodes and routes to
// their pods.
func (w *Network) AddHost(t testing.TB) *Host {
	t.Helper()
	w.hosts++
	h := newHost(t)
	number := 100 + w.hosts
	h.Addrs = UnderlayAddrs(number)
	w.attach(t, h, number)
	w.routeToPods(t, h, number)
	return h
}

// UnderlayAddrs are the addresses of a node by its number, one per family.
func UnderlayAddrs(number int) []netip.Addr {
	return []netip.Addr{
		netip.AddrFrom4([4]byte{172, 18, 0, byte(number)}),
		netip.AddrFrom16([16]byte{0: 0xfd, 2: 0x01, 3: 0x72, 5: 0x18, 15: byte(number)}),
	}
}

// attach connects a host to the underlay.
func (w *Network) attach(t testing.TB, h *Host, number int) {
	t.Helper()
	name := fmt.Sprintf("port%d", number)
	plug(t, h, w.fabric, name, func() error { return addPort(underlayName, name) })
	require.NoError(t, h.Do(func() error {
		for _, addr := range UnderlayAddrs(number) {
			bits := underlayBits4
			if addr.Is6() {
				bits = underlayBits6
			}
			if err := addAddr("eth0", addr, bits); err != nil {
				return err
			}
		}
		return nil
	}))
	w.fabric.awaitLink(t, name)
	w.fabric.awaitLink(t, underlayName)
	h.awaitLink(t, "eth0")
}

// routeToPods gives a host the routes to the pods of all nodes but itself.
func (w *Network) routeToPods(t testing.TB, h *Host, self int) {
	t.Helper()
	require.NoError(t, h.Do(func() error {
		for i, node := range w.Nodes {
			if i+1 == self {
				continue
			}
			gateways := UnderlayAddrs(i + 1)
			for family, cidr := range node.PodCIDRs() {
				if err := addRoute("eth0", cidr, gateways[family]); err != nil {
					return err
				}
			}
		}
		return nil
	}))
}
