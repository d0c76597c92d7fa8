//go:build linux

package machine

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMachineAddresses(t *testing.T) {
	n := Node(2)
	require.Equal(t, "node-2", n.Name)
	require.Equal(t, "moat-node-2", n.netns())
	require.Equal(t, "172.30.0.12/24", Joined(n.Addresses(FamilyIPv4)))
	require.Equal(t, "172.30.0.12/24,fd00:30::12/64", Joined(n.Addresses(FamilyDual)))
	require.Equal(t, "10.244.2.0/24,fd00:10:244:2::/64", Joined(n.PodCIDRs(FamilyDual)))
	require.Equal(t, netip.MustParseAddr("fd00:30::12"), n.address(ClusterCIDRv6.Addr()))
	require.Equal(t, netip.MustParseAddr("172.30.0.12"), n.address(ClusterCIDRv4.Addr()))
}

// No two of the networks may overlap, or a route would hide another.
func TestNetworksAreDisjoint(t *testing.T) {
	networks := []netip.Prefix{machineNetV4, machineNetV6, ClusterCIDRv4, ClusterCIDRv6, serviceCIDRv4, serviceCIDRv6}
	for _, address := range worldAddresses {
		if !address.IsSingleIP() {
			networks = append(networks, address.Masked())
		}
	}
	for i, a := range networks {
		for _, b := range networks[:i] {
			require.False(t, a.Overlaps(b), "%s and %s", a, b)
		}
	}
}

func TestPodCIDRsAreInTheClusterAndDistinct(t *testing.T) {
	seen := map[string]bool{}
	for _, n := range append(Nodes(MaxNodes), ControlPlane(), theWorld()) {
		for _, address := range n.Addresses(FamilyDual) {
			require.False(t, seen[address.String()], address)
			seen[address.String()] = true
		}
	}
	for _, n := range Nodes(MaxNodes) {
		for i, cidr := range n.PodCIDRs(FamilyDual) {
			require.True(t, ClusterCIDRs(FamilyDual)[i].Contains(cidr.Addr()), cidr)
			require.False(t, seen[cidr.String()], cidr)
			seen[cidr.String()] = true
		}
	}
}
