package nodetest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeName is that of Flannel's bridge.
const bridgeName = "cni0"

// The addresses of a node alone on its bridge, and of every node on the links to
// what it routes to.
var (
	NodeAddr4 = podAddr4(1, 1)
	NodeAddr6 = podAddr6(1, 1)

	linkAddr4 = netip.MustParseAddr("169.254.1.1")
	linkAddr6 = netip.MustParseAddr("fe80::1")
)

// The addresses of the router of AddBehindRouter.
const (
	routerAddr4 = "192.168.77.1"
	routerAddr6 = "fd00:77::1"
)

// The router's addresses on the host's side. They aren't those of the node: the router
// would not answer the node when it asks for a neighbour under an address of the router's
// own.
var (
	innerAddr4 = netip.MustParseAddr("169.254.2.1")
	innerAddr6 = netip.MustParseAddr("fe80::2")
)

// Node is a host that forwards between pods on a bridge, like Flannel's cni0, and
// others that it routes to, like pods of other nodes and the rest of the world.
//
// Its Addrs are those on the bridge, the pods' gateways.
type Node struct {
	*Host
	links int
	ports map[*Host]string // the node's end of each host's link
}

// NewNode makes a node without pods, alone in its network.
func NewNode(t testing.TB) *Node {
	t.Helper()
	return newNode(t, 1)
}

// newNode makes the node with a number, which its pods' addresses have in them.
func newNode(t testing.TB, number int) *Node {
	t.Helper()
	n := &Node{Host: newHost(t), ports: map[*Host]string{}}
	n.Addrs = []netip.Addr{podAddr4(number, 1), podAddr6(number, 1)}
	require.NoError(t, n.Do(func() error {
		if err := addBridge(bridgeName); err != nil {
			return err
		}
		for _, addr := range n.Addrs {
			if err := addAddr(bridgeName, addr, podBits(addr)); err != nil {
				return err
			}
		}
		for _, sysctl := range []string{
			"ipv4/ip_forward", "ipv6/conf/all/forwarding",
			"bridge/bridge-nf-call-iptables", "bridge/bridge-nf-call-ip6tables",
		} {
			if err := SetSysctl(sysctl, "1"); err != nil {
				return err
			}
		}
		return nil
	}))
	return n
}

// PodCIDRs returns the prefixes of the node's pods, one per family.
func (n *Node) PodCIDRs() []netip.Prefix {
	var cidrs []netip.Prefix
	for _, addr := range n.Addrs {
		cidrs = append(cidrs, netip.PrefixFrom(addr, podBits(addr)).Masked())
	}
	return cidrs
}

func podAddr4(node int, host byte) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 244, byte(node), host})
}

func podAddr6(node int, host byte) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x10, 4: 0x02, 5: 0x44, 7: byte(node), 15: host})
}

// SetSysctl writes a file below /proc/sys/net of the present namespace.
func SetSysctl(name, value string) error {
	return os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
}

// podBits is the length of a node's pod CIDR.
func podBits(addr netip.Addr) int {
	if addr.Is4() {
		return 24
	}
	return 64
}

// AddPod puts a pod on the node's bridge. Its addresses have to be in the node's
// PodCIDRs: 10.244.1.0/24 and fd00:10:244:1::/64 where the node is alone.
func (n *Node) AddPod(t testing.TB, addrs ...string) *Host {
	t.Helper()
	return n.StartPod(t, func(*Host) {}, addrs...)
}

// StartPod is AddPod that calls prepare when the pod has a network, before it has a
// link and addresses there.
func (n *Node) StartPod(t testing.TB, prepare func(*Host), addrs ...string) *Host {
	t.Helper()
	pod := n.connect(t, addrs, podBits, n.Addrs, func(host *Host, name string) error {
		prepare(host)
		if err := addPort(bridgeName, name); err != nil {
			return err
		}
		port, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		// A Service may lead a pod back to itself.
		return netlink.LinkSetHairpin(port, true)
	})
	n.awaitLink(t, bridgeName)
	return pod
}

// Port returns the node's end of the link of a pod or another host.
func (n *Node) Port(host *Host) string { return n.ports[host] }

// RenamePort gives the node's end of a pod's link the name that another one had.
func (n *Node) RenamePort(t testing.TB, host *Host, name string) {
	t.Helper()
	require.NoError(t, n.Do(func() error {
		port, err := netlink.LinkByName(n.ports[host])
		if err != nil {
			return fmt.Errorf("finding the pod's link: %w", err)
		}
		return errors.Join(netlink.LinkSetDown(port), netlink.LinkSetName(port, name), netlink.LinkSetUp(port))
	}))
	n.ports[host] = name
	n.awaitLink(t, name)
}

// RemovePod takes a pod from the node's bridge and closes it. The node forgets who had
// its addresses: network plugins announce the next one who does.
func (n *Node) RemovePod(t testing.TB, pod *Host) {
	t.Helper()
	require.NoError(t, n.Do(func() error {
		port, err := netlink.LinkByName(n.ports[pod])
		if err != nil {
			return fmt.Errorf("finding the pod's link: %w", err)
		}
		if err := netlink.LinkDel(port); err != nil {
			return err
		}
		for _, addr := range pod.Addrs {
			err := netlink.NeighDel(&netlink.Neigh{LinkIndex: port.Attrs().MasterIndex, IP: addr.AsSlice()})
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("forgetting the neighbour %s: %w", addr, err)
			}
		}
		return nil
	}))
	delete(n.ports, pod)
	pod.Close()
}

// AddRemote puts a host behind a link of its own, that the node routes to.
func (n *Node) AddRemote(t testing.TB, addrs ...string) *Host {
	t.Helper()
	return n.connect(t, addrs, netip.Addr.BitLen, []netip.Addr{linkAddr4, linkAddr6}, func(remote *Host, name string) error {
		if err := addAddr(name, linkAddr4, 32); err != nil {
			return err
		}
		if err := addAddr(name, linkAddr6, 64); err != nil {
			return err
		}
		for _, addr := range remote.Addrs {
			if err := addRoute(name, netip.PrefixFrom(addr, addr.BitLen()), netip.Addr{}); err != nil {
				return err
			}
		}
		return nil
	})
}

// AddBehindRouter puts a host behind a router that the node routes to. Packets
// to the host that are longer than mtu don't fit: the router says so with ICMP.
func (n *Node) AddBehindRouter(t testing.TB, mtu int, addrs ...string) *Host {
	t.Helper()
	router := n.AddRemote(t, routerAddr4, routerAddr6)
	h := newHost(t)
	const name = "narrow"
	plug(t, h, router, name, func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, sysctl := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := SetSysctl(sysctl, "1"); err != nil {
				return err
			}
		}
		return errors.Join(netlink.LinkSetMTU(link, mtu), addAddr(name, innerAddr4, 32), addAddr(name, innerAddr6, 64))
	})
	for _, text := range addrs {
		addr := netip.MustParseAddr(text)
		h.Addrs = append(h.Addrs, addr)
		here, gateway, via := netip.PrefixFrom(addr, addr.BitLen()), innerAddr4, router.Addrs[0]
		if addr.Is6() {
			gateway, via = innerAddr6, router.Addrs[1]
		}
		require.NoError(t, router.Do(func() error { return addRoute(name, here, netip.Addr{}) }))
		require.NoError(t, h.Do(func() error {
			return errors.Join(addAddr("eth0", addr, addr.BitLen()), addRoute("eth0", netip.PrefixFrom(gateway, 0).Masked(), gateway))
		}))
		require.NoError(t, n.Do(func() error { return addRoute(fmt.Sprintf("veth%d", n.links), here, via) }))
	}
	h.awaitLink(t, "eth0")
	router.awaitLink(t, name)
	return h
}

// connect makes a host with a link to the node. attach sets up the node's end.
func (n *Node) connect(t testing.TB, addrs []string, bits func(netip.Addr) int, gateways []netip.Addr, attach func(host *Host, name string) error) *Host {
	t.Helper()
	h := newHost(t)
	for _, addr := range addrs {
		h.Addrs = append(h.Addrs, netip.MustParseAddr(addr))
	}
	n.links++
	name := fmt.Sprintf("veth%d", n.links)
	n.ports[h] = name
	plug(t, h, n.Host, name, func() error { return attach(h, name) })
	require.NoError(t, h.Do(func() error {
		for _, addr := range h.Addrs {
			if err := addAddr("eth0", addr, bits(addr)); err != nil {
				return err
			}
		}
		for _, gateway := range gateways {
			if h.Addr(gateway).IsValid() {
				if err := addRoute("eth0", netip.PrefixFrom(gateway, 0).Masked(), gateway); err != nil {
					return err
				}
			}
		}
		return nil
	}))
	n.awaitLink(t, name)
	h.awaitLink(t, "eth0")
	return h
}

// plug makes a link between eth0 of a host and a link of another. attach sets up
// the other's end.
func plug(t testing.TB, h, other *Host, name string, attach func() error) {
	t.Helper()
	require.NoError(t, other.Do(func() error {
		veth := &netlink.Veth{
			LinkAttrs:     netlink.LinkAttrs{Name: name, TxQLen: -1},
			PeerName:      "eth0",
			PeerNamespace: netlink.NsFd(h.ns),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("adding a veth: %w", err)
		}
		if err := linkUp(name); err != nil {
			return err
		}
		return attach()
	}))
	require.NoError(t, h.Do(func() error { return linkUp("eth0") }))
}

// awaitLink waits until a link carries packets and its addresses are in use. The
// kernel takes up to a second from the first port of a bridge on, and drops
// packets until then.
func (h *Host) awaitLink(t testing.TB, name string) {
	t.Helper()
	ready := func() bool {
		return h.Do(func() error {
			link, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			// A bridge with an address of its own never says that it is up.
			switch attrs := link.Attrs(); {
			case attrs.OperState == netlink.OperUp:
			case attrs.OperState == netlink.OperUnknown && attrs.RawFlags&unix.IFF_LOWER_UP != 0:
			default:
				return errors.New("no carrier")
			}
			addrs, err := netlink.AddrList(link, netlink.FAMILY_V6)
			if err != nil {
				return err
			}
			for _, addr := range addrs {
				if addr.Flags&unix.IFA_F_TENTATIVE != 0 {
					return fmt.Errorf("address %s isn't in use yet", addr.IP)
				}
			}
			return nil
		}) == nil
	}
	require.Eventually(t, ready, 5*time.Second, 5*time.Millisecond, "link %s isn't ready", name)
}

func addBridge(name string) error {
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: -1}}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("adding a bridge: %w", err)
	}
	// A bridge has the lowest address of its ports unless it was given one, be it
	// its own. With the next port it could change, and who knows the old one
	// would lose the bridge.
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding bridge %s: %w", name, err)
	}
	if err := netlink.LinkSetHardwareAddr(link, link.Attrs().HardwareAddr); err != nil {
		return fmt.Errorf("setting the address of bridge %s: %w", name, err)
	}
	return linkUp(name)
}

func addPort(bridgeName, name string) error {
	bridge, err := netlink.LinkByName(bridgeName)
	if err != nil {
		return fmt.Errorf("finding bridge %s: %w", bridgeName, err)
	}
	port, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	if err := netlink.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("adding %s to bridge %s: %w", name, bridgeName, err)
	}
	return nil
}

func linkUp(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting link %s up: %w", name, err)
	}
	return nil
}

// addAddr gives a link an address. Duplicate address detection would keep an IPv6
// address from use for a second.
func addAddr(name string, addr netip.Addr, bits int) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	a := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(addr, bits))}
	if addr.Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return fmt.Errorf("adding %s to link %s: %w", addr, name, err)
	}
	return nil
}

// addRoute adds a route by a gateway, or to the link itself without one.
func addRoute(name string, to netip.Prefix, gateway netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding link %s: %w", name, err)
	}
	route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(to)}
	if gateway.IsValid() {
		route.Gw, route.Flags = gateway.AsSlice(), int(netlink.FLAG_ONLINK)
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := netlink.RouteAdd(route); err != nil {
		return fmt.Errorf("routing %s to link %s: %w", to, name, err)
	}
	return nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
