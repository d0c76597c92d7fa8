package host

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/compile"
)

// BroadcastsOf returns the broadcast addresses of the node's networks on the given links,
// sorted. With an error it returns the last.
func BroadcastsOf(links compile.Links, last []netip.Addr) ([]netip.Addr, error) {
	if !links.Closed() {
		return nil, nil
	}
	filter := &netlink.Route{Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_BROADCAST}
	routes, err := netlink.RouteListFiltered(netlink.FAMILY_V4, filter, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return last, fmt.Errorf("listing the node's broadcast addresses: %w", err)
	}
	names := map[int]string{}
	var addrs []netip.Addr
	for i := range routes {
		route := &routes[i]
		if _, known := names[route.LinkIndex]; !known {
			link, err := netlink.LinkByIndex(route.LinkIndex)
			if err != nil {
				return last, fmt.Errorf("finding the link of the broadcast address %s: %w", route.Dst, err)
			}
			names[route.LinkIndex] = link.Attrs().Name
		}
		if route.Dst == nil || !leadsTo(links, names[route.LinkIndex]) {
			continue
		}
		if addr, ok := netip.AddrFromSlice(route.Dst.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return sortedAddrs(addrs), nil
}

// leadsTo reports whether the links have a name.
func leadsTo(links compile.Links, name string) bool {
	return slices.ContainsFunc(links[:], func(names []string) bool { return slices.Contains(names, name) })
}
