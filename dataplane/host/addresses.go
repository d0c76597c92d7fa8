package host

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// LocalAddresses returns the addresses of all of the node's interfaces.
func LocalAddresses() (map[netip.Addr]struct{}, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("listing the node's addresses: %w", err)
	}
	own := make(map[netip.Addr]struct{}, len(list))
	for i := range list {
		if addr, ok := netip.AddrFromSlice(list[i].IP); ok {
			own[addr.Unmap()] = struct{}{}
		}
	}
	return own, nil
}
