package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Tunnels are those by which nodes reach each other's pods. A node takes any datagram to such
// a port for a frame of another node, also one that a pod sends: the pod could speak with any
// address of any node. So packets from pods to these ports are dropped.
//
// The zero value has no tunnel.
type Tunnels struct {
	// Ports are the UDP ports on which nodes listen, sorted.
	Ports []uint16

	// Ends are the other nodes' addresses that tunnels lead to. Pods may send to the same
	// port of any other address.
	Ends []netip.Addr
}

const (
	// TunnelChain drops packets that come from the node's pods.
	TunnelChain = ChainPrefix + "TUNNEL"

	// tunnelLinks is the most interfaces of pods that a packet of a tunnel is compared with.
	// Where each pod has an interface on the node, there are more, and nothing is dropped.
	tunnelLinks = 16
)

// TunnelSet is the name of the set of addresses that tunnels lead to.
func TunnelSet(family ruleset.Family) string { return fmt.Sprintf("%s%d-tunnel", SetPrefix, family) }

// podLinks returns the interfaces that lead to pods of the node, sorted.
func (h *Host) podLinks() []string {
	links := map[string]bool{}
	for _, way := range h.Ways {
		if way != "" {
			links[way] = true
		}
	}
	return slices.Sorted(maps.Keys(links))
}

// closesTunnels reports whether there are rules about tunnels.
func (c *compiler) closesTunnels() bool {
	links := len(c.host.podLinks())
	return len(c.host.Tunnels.Ports) > 0 && links > 0 && links <= tunnelLinks
}

// tunnelEnds returns the members of the set of addresses that tunnels lead to. It returns nil
// where there is no set.
func (c *compiler) tunnelEnds() ruleset.Members {
	if !c.closesTunnels() {
		return nil
	}
	members := ruleset.Members{}
	for _, addr := range c.host.Tunnels.Ends {
		if c.family.Holds(addr) {
			members[ruleset.Address(addr)] = struct{}{}
		}
	}
	return members
}

// tunnelJumps sends packets to a port of a tunnel to the chain: those to any address, or those
// that match ends.
func (c *compiler) tunnelJumps(ends ...ruleset.Match) []ruleset.Rule {
	if !c.closesTunnels() {
		return nil
	}
	var rules []ruleset.Rule
	for _, port := range c.host.Tunnels.Ports {
		match := []ruleset.Match{
			ruleset.ProtocolMatch{Protocol: uint8(policy.UDP)},
			ruleset.PortMatch{Ranges: []ruleset.PortRange{{First: port, Last: port}}},
		}
		rules = append(rules, ruleset.Rule{Match: append(match, ends...), Action: ruleset.Jump, Target: TunnelChain})
	}
	return rules
}

// toTunnelEnds matches packets to an address that tunnels lead to.
func (c *compiler) toTunnelEnds() ruleset.Match {
	return ruleset.SetMatch{Set: TunnelSet(c.family), Type: ruleset.HashIP, Side: ruleset.Destination}
}

func (c *compiler) tunnelChain() {
	if !c.closesTunnels() {
		return
	}
	c.addSet(ruleset.Set{Name: TunnelSet(c.family), Type: ruleset.HashIP, Entering: ruleset.Closes})
	var drops []ruleset.Rule
	for _, link := range c.host.podLinks() {
		from := ruleset.InterfaceMatch{Side: ruleset.Source, Name: link}
		drops = append(drops, drop(ruleset.IntoTunnel, from))
	}
	c.addChain(TunnelChain, drops...)
}
