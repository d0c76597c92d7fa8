//go:build linux

package main

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// stateDir holds everything that a cluster keeps on disk. There is one per
// machine, since the addresses and namespaces of two clusters would collide.
const stateDir = "/var/lib/moat-cluster"

// The machines that are no node.
const (
	controlPlane = "control-plane"
	world        = "world" // the test host outside of the cluster
)

// The network that all machines are on; the bridge is in the control plane's
// namespace.
var (
	machineNetV4 = netip.MustParsePrefix("172.30.0.0/24")
	machineNetV6 = netip.MustParsePrefix("fd00:30::/64")

	clusterCIDRv4 = netip.MustParsePrefix("10.244.0.0/16")
	clusterCIDRv6 = netip.MustParsePrefix("fd00:10:244::/48")

	serviceCIDRv4 = netip.MustParsePrefix("10.96.0.0/16")
	serviceCIDRv6 = netip.MustParsePrefix("fd00:10:96::/112")
)

// worldAddresses are those that tests name in ipBlocks. The second IPv4 network
// has one address inside and one outside of a usual exception (172.17.1.0/24).
var worldAddresses = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.10/24"),
	netip.MustParsePrefix("172.17.0.10/16"),
	netip.MustParsePrefix("172.17.1.10/32"),
	netip.MustParsePrefix("fd00:10::10/64"),
	netip.MustParsePrefix("2001:db8:17::10/64"),
}

// The host numbers of the machines in both families: node N has nodeHost + N.
const (
	controlPlaneHost = 1
	worldHost        = 5
	nodeHost         = 10
)

const apiServerPort = 6443

// machine is one host of the cluster's network. number is 0 unless it's a node.
type machine struct {
	name   string
	host   int
	number int
}

func theControlPlane() machine { return machine{name: controlPlane, host: controlPlaneHost} }
func theWorld() machine        { return machine{name: world, host: worldHost} }

func node(number int) machine {
	return machine{name: fmt.Sprintf("node-%d", number), host: nodeHost + number, number: number}
}

func nodes(count int) []machine {
	list := make([]machine, count)
	for i := range list {
		list[i] = node(i + 1)
	}
	return list
}

func (m machine) isNode() bool { return m.number > 0 }

// netns is the name of the machine's network namespace.
func (m machine) netns() string { return "moat-" + m.name }

func (m machine) dir() string { return filepath.Join(stateDir, m.name) }

func (m machine) path(elements ...string) string {
	return filepath.Join(append([]string{m.dir()}, elements...)...)
}

func (m machine) logFile(process string) string { return m.path("logs", process+".log") }

// addresses are the machine's own, with their networks: IPv4 first.
func (m machine) addresses(family ipFamily) []netip.Prefix {
	v4 := machineNetV4.Addr().As4()
	v4[3] = byte(m.host)
	list := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(v4), machineNetV4.Bits())}
	if family == familyDual {
		// The host number is written as it reads: node-1 is 172.30.0.11 and fd00:30::11.
		v6 := netip.MustParseAddr(fmt.Sprintf("fd00:30::%d", m.host))
		list = append(list, netip.PrefixFrom(v6, machineNetV6.Bits()))
	}
	return list
}

// address is the machine's own in the family of like.
func (m machine) address(like netip.Addr) netip.Addr {
	for _, p := range m.addresses(familyDual) {
		if p.Addr().Is4() == like.Is4() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// podCIDRs are the node's, IPv4 first.
func (m machine) podCIDRs(family ipFamily) []netip.Prefix {
	list := []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", m.number))}
	if family == familyDual {
		list = append(list, netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", m.number)))
	}
	return list
}

// families keeps the IPv6 prefixes only in a dual-stack cluster.
func families(family ipFamily, prefixes ...netip.Prefix) []netip.Prefix {
	var kept []netip.Prefix
	for _, p := range prefixes {
		if family == familyDual || p.Addr().Is4() {
			kept = append(kept, p)
		}
	}
	return kept
}

func clusterCIDRs(family ipFamily) []netip.Prefix {
	return families(family, clusterCIDRv4, clusterCIDRv6)
}
func serviceCIDRs(family ipFamily) []netip.Prefix {
	return families(family, serviceCIDRv4, serviceCIDRv6)
}

// joined separates values by commas, as the components' flags take them.
func joined[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, item := range list {
		texts[i] = item.String()
	}
	return strings.Join(texts, ",")
}

func addrs(prefixes []netip.Prefix) []netip.Addr {
	list := make([]netip.Addr, len(prefixes))
	for i, p := range prefixes {
		list[i] = p.Addr()
	}
	return list
}
