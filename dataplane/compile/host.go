package compile

import (
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Extension is a match that a kernel or its iptables may lack. Then the rules do without it, and
// let more packets pass.
type Extension string

// The extensions, by the names of iptables.
const (
	HopLimit    Extension = "hl"
	Length      Extension = "length"
	ICMP        Extension = "icmp"    // of IPv4; rules of IPv6 have always used icmp6
	GroupFrames Extension = "pkttype" // without it, frames to groups pass

	// BridgePort is used where pods are ports of a bridge and their sources are judged. A rule
	// with it makes the kernel load br_netfilter.
	BridgePort Extension = "physdev"
)

// Extensions returns the extensions that all rules of a family use, each with a match that needs
// it.
func Extensions(family ruleset.Family) map[Extension][]ruleset.Match {
	uses := map[Extension][]ruleset.Match{
		Length:      {ruleset.AtMost(discoveryMost)},
		GroupFrames: {ruleset.GroupFrameMatch{}},
	}
	if family == ruleset.IPv6 {
		uses[HopLimit] = []ruleset.Match{ruleset.HopLimitMatch{Limit: discoveryHops}}
	} else {
		uses[ICMP] = icmpv4(5, ruleset.AnyCode)
	}
	return uses
}

// BridgePorts returns BridgePort with a match that needs it, as Extensions does. The kernel
// accepts a name that no interface has.
func BridgePorts() map[Extension][]ruleset.Match {
	return map[Extension][]ruleset.Match{BridgePort: {ruleset.BridgePortMatch{Name: "moat"}}}
}

// Host is the rest of the node beside its pods, for one family. The zero value lacks no
// extension, and its interfaces aren't known.
type Host struct {
	// Lacks are the extensions that rules do without.
	Lacks []Extension

	// Ways maps addresses of the node's pods to the interfaces that lead to them. The interface
	// is empty where no rule can name it.
	Ways map[netip.Addr]string

	// Held are the names that the kernel holds. The output uses none of them for another
	// content.
	Held Names

	// Broadcasts are the broadcast addresses of the networks that the node has with its pods.
	Broadcasts []netip.Addr

	// Tunnels are those that begin and end on the node.
	Tunnels Tunnels
}

func (h *Host) has(extension Extension) bool { return !slices.Contains(h.Lacks, extension) }

// hops matches packets with a hop limit. Without the extension it matches all packets.
func (h *Host) hops(limit uint8) []ruleset.Match {
	if !h.has(HopLimit) {
		return nil
	}
	return []ruleset.Match{ruleset.HopLimitMatch{Limit: limit}}
}

// atMost matches packets of no more than so many bytes. Without the extension it matches all
// packets.
func (h *Host) atMost(bytes uint16) []ruleset.Match {
	if !h.has(Length) {
		return nil
	}
	return []ruleset.Match{ruleset.AtMost(bytes)}
}

// toItself matches packets that a pod sends to itself through a Service or a port of its node:
// the kernel has changed their destination, and they came by the pod's interface. A packet that
// a pod sends to its own address never leaves the pod, so one with the same source and
// destination and without translation is forged. So is one that came by another interface: a
// stranger that forges a pod's address as source can have the destination translated too.
func (c *compiler) toItself(addr netip.Addr) []ruleset.Match {
	match := []ruleset.Match{
		ruleset.HostMatch(ruleset.Source, addr), ruleset.HostMatch(ruleset.Destination, addr), ruleset.TranslatedMatch{},
	}
	if way := c.host.Ways[addr]; way != "" {
		match = append(match, ruleset.InterfaceMatch{Side: ruleset.Source, Name: way})
	}
	return match
}
