//go:build linux

package main

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMachineAddresses(t *testing.T) {
	n := node(2)
	require.Equal(t, "node-2", n.name)
	require.Equal(t, "moat-node-2", n.netns())
	require.Equal(t, "172.30.0.12/24", joined(n.addresses(familyIPv4)))
	require.Equal(t, "172.30.0.12/24,fd00:30::12/64", joined(n.addresses(familyDual)))
	require.Equal(t, "10.244.2.0/24,fd00:10:244:2::/64", joined(n.podCIDRs(familyDual)))
	require.Equal(t, netip.MustParseAddr("fd00:30::12"), n.address(clusterCIDRv6.Addr()))
	require.Equal(t, netip.MustParseAddr("172.30.0.12"), n.address(clusterCIDRv4.Addr()))
}

// No two of the networks may overlap, or a route would hide another.
func TestNetworksAreDisjoint(t *testing.T) {
	networks := []netip.Prefix{machineNetV4, machineNetV6, clusterCIDRv4, clusterCIDRv6, serviceCIDRv4, serviceCIDRv6}
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
	for _, n := range append(nodes(maxNodes), theControlPlane(), theWorld()) {
		for _, address := range n.addresses(familyDual) {
			require.False(t, seen[address.String()], address)
			seen[address.String()] = true
		}
	}
	for _, n := range nodes(maxNodes) {
		for i, cidr := range n.podCIDRs(familyDual) {
			require.True(t, clusterCIDRs(familyDual)[i].Contains(cidr.Addr()), cidr)
			require.False(t, seen[cidr.String()], cidr)
			seen[cidr.String()] = true
		}
	}
}
