//go:build linux

package machine

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// StateDir holds everything that a cluster keeps on disk. There is one per
// machine, since the addresses and namespaces of two clusters would collide.
const StateDir = "/var/lib/moat-cluster"

// The machines that are no node.
const (
	ControlPlaneName = "control-plane"
	WorldName        = "world" // the test host outside of the cluster
)

// The network that all machines are on; the bridge is in the control plane's
// namespace.
var (
	machineNetV4 = netip.MustParsePrefix("172.30.0.0/24")
	machineNetV6 = netip.MustParsePrefix("fd00:30::/64")

	ClusterCIDRv4 = netip.MustParsePrefix("10.244.0.0/16")
	ClusterCIDRv6 = netip.MustParsePrefix("fd00:10:244::/48")

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

// Machine is one host of the cluster's network: the control plane, a node or the world.
// It is a value: what it is called and where its files and addresses are. number is 0
// unless it's a node.
type Machine struct {
	Name   string
	host   int
	number int
}

// ControlPlane is the machine of etcd, the API server and the controllers.
func ControlPlane() Machine { return Machine{Name: ControlPlaneName, host: controlPlaneHost} }

// theWorld is the test host outside of the cluster.
func theWorld() Machine { return Machine{Name: WorldName, host: worldHost} }

// Node is the node with that number, from 1.
func Node(number int) Machine {
	return Machine{Name: fmt.Sprintf("node-%d", number), host: nodeHost + number, number: number}
}

// Nodes are the first count nodes.
func Nodes(count int) []Machine {
	list := make([]Machine, count)
	for i := range list {
		list[i] = Node(i + 1)
	}
	return list
}

func (m Machine) isNode() bool { return m.number > 0 }

// netns is the name of the machine's network namespace.
func (m Machine) netns() string { return "moat-" + m.Name }

// Dir is the folder of all that the machine keeps on disk.
func (m Machine) Dir() string { return filepath.Join(StateDir, m.Name) }

// Path is a path below Dir.
func (m Machine) Path(elements ...string) string {
	return filepath.Join(append([]string{m.Dir()}, elements...)...)
}

// LogFile is where a daemon of the machine writes.
func (m Machine) LogFile(process string) string { return m.Path("logs", process+".log") }

// Addresses are the machine's own, with their networks: IPv4 first.
func (m Machine) Addresses(family IPFamily) []netip.Prefix {
	v4 := machineNetV4.Addr().As4()
	v4[3] = byte(m.host)
	list := []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4(v4), machineNetV4.Bits())}
	if family == FamilyDual {
		// The host number is written as it reads: node-1 is 172.30.0.11 and fd00:30::11.
		v6 := netip.MustParseAddr(fmt.Sprintf("fd00:30::%d", m.host))
		list = append(list, netip.PrefixFrom(v6, machineNetV6.Bits()))
	}
	return list
}

// address is the machine's own in the family of like.
func (m Machine) address(like netip.Addr) netip.Addr {
	for _, p := range m.Addresses(FamilyDual) {
		if p.Addr().Is4() == like.Is4() {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

// PodCIDRs are the node's, IPv4 first.
func (m Machine) PodCIDRs(family IPFamily) []netip.Prefix {
	list := []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", m.number))}
	if family == FamilyDual {
		list = append(list, netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", m.number)))
	}
	return list
}

// families keeps the IPv6 prefixes only in a dual-stack cluster.
func families(family IPFamily, prefixes ...netip.Prefix) []netip.Prefix {
	var kept []netip.Prefix
	for _, p := range prefixes {
		if family == FamilyDual || p.Addr().Is4() {
			kept = append(kept, p)
		}
	}
	return kept
}

// ClusterCIDRs hold all addresses of pods, IPv4 first.
func ClusterCIDRs(family IPFamily) []netip.Prefix {
	return families(family, ClusterCIDRv4, ClusterCIDRv6)
}

// ServiceCIDRs hold all addresses of Services, IPv4 first.
func ServiceCIDRs(family IPFamily) []netip.Prefix {
	return families(family, serviceCIDRv4, serviceCIDRv6)
}

// Joined separates values by commas, as the components' flags take them.
func Joined[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, item := range list {
		texts[i] = item.String()
	}
	return strings.Join(texts, ",")
}
