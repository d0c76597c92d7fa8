package host

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/compile"
)

// TunnelsOf returns the node's tunnels that take frames from anybody who knows their port:
// VXLAN and Geneve. Their other ends are those that the kernel's forwarding tables name.
// With an error it returns the last.
func TunnelsOf(last compile.Tunnels) (compile.Tunnels, error) {
	links, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return last, fmt.Errorf("listing the node's interfaces: %w", err)
	}
	var t compile.Tunnels
	for _, link := range links {
		switch tunnel := link.(type) {
		case *netlink.Vxlan:
			t.Ports = append(t.Ports, uint16(tunnel.Port))
			ends, err := forwarding(tunnel)
			if err != nil {
				return last, err
			}
			t.Ends = append(t.Ends, ends...)
		case *netlink.Geneve:
			t.Ports = append(t.Ports, tunnel.Dport)
			t.Ends = appendEnd(t.Ends, tunnel.Remote)
		}
	}
	t.Ports, t.Ends = sortedOnce(t.Ports), sortedAddrs(t.Ends)
	return t, nil
}

// forwarding returns the addresses to which a VXLAN sends frames.
func forwarding(tunnel *netlink.Vxlan) ([]netip.Addr, error) {
	entries, err := netlink.NeighList(tunnel.Index, unix.AF_BRIDGE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("listing where %s leads: %w", tunnel.Name, err)
	}
	ends := appendEnd(nil, tunnel.Group)
	for i := range entries {
		ends = appendEnd(ends, entries[i].IP)
	}
	return ends, nil
}

// appendEnd adds the address of a node; none for a group or an address that isn't set.
func appendEnd(ends []netip.Addr, ip net.IP) []netip.Addr {
	addr, ok := netip.AddrFromSlice(ip)
	addr = addr.Unmap()
	if !ok || addr.IsUnspecified() || addr.IsMulticast() {
		return ends
	}
	return append(ends, addr)
}

func sortedOnce(ports []uint16) []uint16 {
	slices.Sort(ports)
	return slices.Compact(ports)
}

func sortedAddrs(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// SameTunnels reports whether both lead to the same places by the same ports.
func SameTunnels(a, b compile.Tunnels) bool {
	return slices.Equal(a.Ports, b.Ports) && slices.Equal(a.Ends, b.Ends)
}
