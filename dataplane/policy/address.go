package policy

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Why no pod can have an address.
const (
	faultUnreadable  = "can't be read"
	faultUnspecified = "unspecified"
	faultLoopback    = "loopback"
	faultMulticast   = "multicast"
	faultBroadcast   = "broadcast"
	faultLinkLocal   = "link-local"
)

// broadcast is the limited broadcast address (RFC 919).
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// ParseAddr reads an address of a pod. It returns a reason where no pod can have the address:
// no packet between machines has it, or many machines have it at once. A status may name such an
// address by mistake or on purpose, and ipset refuses some of them. An IPv4 address that is
// written as an IPv6 one counts as the IPv4 address.
func ParseAddr(text string) (addr netip.Addr, fault string) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, faultUnreadable
	}
	addr = addr.Unmap().WithZone("")
	switch {
	case addr.IsUnspecified():
		fault = faultUnspecified
	case addr.IsLoopback():
		fault = faultLoopback
	case addr.IsMulticast():
		fault = faultMulticast
	case addr.IsLinkLocalUnicast():
		fault = faultLinkLocal
	case addr == broadcast:
		fault = faultBroadcast
	}
	return addr, fault
}

// podAddrs returns the addresses of a pod's status, sorted, and names those that no pod
// can have.
func podAddrs(pod *corev1.Pod) (addrs []netip.Addr, unusable string) {
	var faults []string
	for _, ip := range pod.Status.PodIPs {
		addr, fault := ParseAddr(ip.IP)
		switch fault {
		case "":
			addrs = append(addrs, addr)
		default:
			faults = append(faults, ip.IP+" ("+fault+")")
		}
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), strings.Join(faults, ", ")
}
