package compile_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// guardedNode traces through node-1 of the golden test, which guards its CIDRs.
func guardedNode(t *testing.T, family ruleset.Family) *tracer {
	const folder = "testdata/pod-start-guard"
	c := readObjects(t, folder+"/input.yaml").Cluster()
	out := compileNode(c, "node-1", family, readPodCIDRs(t, folder)...)
	return newTracer(t, &out.Ruleset, contents(&out, c))
}

// An address of the node's pod CIDRs that no known pod has reaches no other address, and
// no other address reaches it. The guard lets known pods and all other addresses pass.
func TestTheGuardClosesUnknownAddressesOfTheNode(t *testing.T) {
	for family, addrs := range map[ruleset.Family]struct{ open, done, fresh, remote, outside string }{
		ruleset.IPv4: {"10.244.1.3", "10.244.1.4", "10.244.1.9", "10.244.2.9", "192.0.2.7"},
		ruleset.IPv6: {"fd00:1::3", "fd00:1::4", "fd00:1::9", "fd00:2::9", "2001:db8::7"},
	} {
		tr := guardedNode(t, family)
		dropped := func(chain, from, to, in string) bool {
			return tr.dropped(chain, &packet{
				source: netip.MustParseAddr(from), destination: netip.MustParseAddr(to), protocol: policy.TCP, port: 80, in: in,
			})
		}
		for _, closed := range []string{addrs.done, addrs.fresh} {
			for _, peer := range []string{addrs.open, addrs.remote, addrs.outside, closed} {
				require.True(t, dropped(compile.ForwardChain, closed, peer, bridge), "%s to %s", closed, peer)
				require.True(t, dropped(compile.ForwardChain, peer, closed, bridge), "%s to %s", peer, closed)
			}
			require.True(t, dropped(compile.InputChain, closed, addrs.outside, bridge), "%s to its node", closed)
			require.False(t, dropped(compile.InputChain, closed, closed, "lo"), "the node to its own address")
		}
		for _, peer := range []string{addrs.remote, addrs.outside} {
			require.False(t, dropped(compile.ForwardChain, addrs.open, peer, bridge))
			require.False(t, dropped(compile.ForwardChain, peer, addrs.open, bridge))
			require.False(t, dropped(compile.ForwardChain, peer, addrs.outside, bridge))
			require.False(t, dropped(compile.InputChain, peer, addrs.outside, "eth0"))
		}
		require.False(t, dropped(compile.InputChain, addrs.open, addrs.outside, bridge))
	}
}

// A pod of another node that has an address of the node's pod CIDRs passes by the
// interfaces that lead to other nodes, and by no other: there the address is a new pod's
// of this node. A pod that may pass still reaches no address that is closed.
func TestTheGuardSparesPodsOfOtherNodes(t *testing.T) {
	for family, addrs := range map[ruleset.Family]struct{ cidr, local, foreign, fresh, outside string }{
		ruleset.IPv4: {"10.244.1.0/24", "10.244.1.3", "10.244.1.77", "10.244.1.9", "192.0.2.7"},
		ruleset.IPv6: {"fd00:1::/64", "fd00:1::3", "fd00:1::77", "fd00:1::9", "2001:db8::7"},
	} {
		guard := compile.Guard{
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix(addrs.cidr)},
			Local:    []netip.Addr{netip.MustParseAddr(addrs.local)},
			Foreign:  []netip.Addr{netip.MustParseAddr(addrs.foreign)},
			Uplinks:  []string{"eth0", "vxlan.calico"},
		}
		out := compile.Compile(compile.Host{}, family, nil, compile.Links{}, guard)
		tr := newTracer(t, &out.Ruleset, contents(&out, &policy.Cluster{}))
		dropped := func(chain, from, to, in, link string) bool {
			return tr.dropped(chain, &packet{
				source: netip.MustParseAddr(from), destination: netip.MustParseAddr(to), protocol: policy.TCP, port: 80, in: in, out: link,
			})
		}
		for _, uplink := range guard.Uplinks {
			for _, peer := range []string{addrs.local, addrs.outside} {
				require.False(t, dropped(compile.ForwardChain, addrs.foreign, peer, uplink, "cali1"), "to %s", peer)
				require.False(t, dropped(compile.ForwardChain, peer, addrs.foreign, "cali1", uplink), "from %s", peer)
			}
			require.False(t, dropped(compile.InputChain, addrs.foreign, addrs.outside, uplink, ""), "to the node")
			require.True(t, dropped(compile.ForwardChain, addrs.foreign, addrs.fresh, uplink, "cali2"), "to an address that is closed")
			require.True(t, dropped(compile.ForwardChain, addrs.fresh, addrs.foreign, "cali2", uplink), "from an address that is closed")
			require.True(t, dropped(compile.ForwardChain, addrs.fresh, addrs.outside, uplink, "eth1"), "nobody's, by an uplink")
		}
		require.True(t, dropped(compile.ForwardChain, addrs.foreign, addrs.outside, "cali3", "eth0"), "the address at a new pod of this node")
		require.True(t, dropped(compile.ForwardChain, addrs.outside, addrs.foreign, "eth0", "cali3"), "the address at a new pod of this node")
		require.True(t, dropped(compile.InputChain, addrs.foreign, addrs.outside, "cali3", ""), "the address at a new pod of this node")
	}
}

// The neighbours of an address find it while it is still closed. Otherwise they would ask again
// only a second later.
func TestTheGuardLetsNeighboursBeFound(t *testing.T) {
	tr := guardedNode(t, ruleset.IPv6)
	p := packet{source: netip.MustParseAddr("fd00:1::9"), destination: netip.MustParseAddr("fd00:1::1"), protocol: policy.ICMPv6, in: bridge}
	for _, p.icmpType = range []uint8{135, 136} {
		require.False(t, tr.dropped(compile.InputChain, &p))
		require.False(t, tr.dropped(compile.ForwardChain, &p))
	}
	p.icmpType = 128
	require.True(t, tr.dropped(compile.InputChain, &p), "an echo request")
}

// A family without a pod CIDR has no guard, and none of its sets.
func TestNoGuardWithoutPodCIDRs(t *testing.T) {
	guard := compile.Guard{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, Local: []netip.Addr{netip.MustParseAddr("fd00:1::2")}}
	out := compile.Compile(compile.Host{}, ruleset.IPv6, nil, compile.Links{}, guard)
	require.Nil(t, out.Local)
	require.Equal(t, compile.Compile(compile.Host{}, ruleset.IPv6, nil, compile.Links{}, compile.Guard{}), out)
}
