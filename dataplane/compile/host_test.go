package compile_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// closedPod is the pod of testdata/default-deny on node-1.
const closedPod = "fd00:1::2"

// closedOn compiles node-1 of testdata/default-deny on a host.
func closedOn(t *testing.T, host compile.Host) (compile.Output, *tracer) {
	t.Helper()
	c := readObjects(t, "testdata/default-deny/input.yaml").Cluster()
	endpoints := policy.Endpoints(podsOf(c, "node-1"), c.Policies)
	out := compile.Compile(host, ruleset.IPv6, endpoints, compile.Links{}, compile.Guard{})
	return out, newTracer(t, &out.Ruleset, contents(&out, c))
}

// Neighbour discovery is to IPv6 what ARP is to IPv4: no policy speaks of it. What a router
// has passed on is none, and neither is a large message. A kernel that can't compare one
// of them lets more pass.
func TestNeighbourDiscoveryPasses(t *testing.T) {
	for _, lacks := range [][]compile.Extension{nil, {compile.HopLimit}, {compile.Length}, {compile.HopLimit, compile.Length}} {
		out, tr := closedOn(t, compile.Host{Lacks: lacks})
		for _, rules := range iptables.Desired(&out.Ruleset).Chains {
			for _, rule := range rules {
				for _, extension := range lacks {
					require.NotContains(t, rule, "-m "+string(extension)+" ")
				}
			}
		}
		small := packet{source: netip.MustParseAddr(closedPod), destination: netip.MustParseAddr("fd00:1::1"), protocol: policy.ICMPv6}
		routed, large := small, small
		routed.routed, large.bytes = true, 1200
		for chain, passing := range map[string][]uint8{compile.ForwardChain: {135, 136}, compile.InputChain: {133, 135, 136}} {
			for icmpType := range 256 {
				discovery := slices.Contains(passing, uint8(icmpType))
				for p, passes := range map[*packet]bool{
					&small:  discovery,
					&routed: discovery && slices.Contains(lacks, compile.HopLimit),
					&large:  discovery && slices.Contains(lacks, compile.Length),
				} {
					p.icmpType = uint8(icmpType)
					require.Equal(t, !passes, tr.dropped(chain, p), "without %v, type %d in %s: %+v", lacks, icmpType, chain, p)
				}
			}
		}
	}
}

// What a pod sends to itself comes by its own interface, and by way of a Service. All else
// that has its address at both ends is forged.
func TestOnlyAPodSpeaksToItself(t *testing.T) {
	addr := netip.MustParseAddr(closedPod)
	for _, way := range []string{"", bridge} {
		_, tr := closedOn(t, compile.Host{Ways: map[netip.Addr]string{addr: way}})
		for _, in := range []string{bridge, "eth0"} {
			for _, translated := range []bool{true, false} {
				p := packet{source: addr, destination: addr, protocol: policy.TCP, port: 80, in: in, out: bridge, translated: translated}
				itself := translated && (way == "" || way == in)
				require.Equal(t, !itself, tr.dropped(compile.ForwardChain, &p), "way %q, packet %+v", way, p)
			}
		}
	}
}

// What pods send to a tunnel is dropped, what nodes send isn't. Where each pod has an
// interface on the node, a packet of a tunnel isn't compared with all of them.
func TestTunnelsAreOfNodes(t *testing.T) {
	node, other := netip.MustParseAddr("fd00:172::1"), netip.MustParseAddr("fd00:172::2")
	for _, links := range []int{1, 16, 17} {
		host := compile.Host{Tunnels: compile.Tunnels{Ports: []uint16{8472}, Ends: []netip.Addr{other}}, Ways: map[netip.Addr]string{}}
		for i := range links {
			host.Ways[netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(i)})] = fmt.Sprintf("veth%d", i)
		}
		out := compile.Compile(host, ruleset.IPv6, nil, compile.Links{}, compile.Guard{})
		require.Equal(t, links <= 16, out.TunnelEnds != nil)
		sets := contents(&out, &policy.Cluster{})
		sets[compile.TunnelSet(ruleset.IPv6)] = out.TunnelEnds
		tr := newTracer(t, &out.Ruleset, sets)
		for _, in := range []string{"veth0", "eth0"} {
			for _, port := range []uint16{8472, 53} {
				p := packet{source: netip.MustParseAddr("fd00::1"), destination: node, protocol: policy.UDP, port: port, in: in}
				drops := in == "veth0" && port == 8472 && links <= 16
				require.Equal(t, drops, tr.dropped(compile.InputChain, &p), "%+v", p)
				p.out, p.destination = "eth0", other
				require.Equal(t, drops, tr.dropped(compile.ForwardChain, &p), "%+v", p)
				p.destination = netip.MustParseAddr("2001:db8::1")
				require.False(t, tr.dropped(compile.ForwardChain, &p), "%+v", p)
			}
		}
	}
}

// What belongs to a connection of isolated pods comes to the chains, and is bounded in size
// and kind. Where nothing is isolated, it doesn't come there.
func TestErrorsOfIsolatedPodsAreBounded(t *testing.T) {
	plain := compile.Compile(compile.Host{}, ruleset.IPv6, nil, compile.Links{}, compile.Guard{})
	for _, hook := range plain.Ruleset.Hooks[:2] {
		require.Equal(t, []ruleset.Match{ruleset.UnestablishedMatch{}}, hook.Match)
	}
	pod, other := netip.MustParseAddr(closedPod), netip.MustParseAddr("2001:db8::1")
	for _, row := range []struct {
		icmpType       uint8
		bytes          uint16
		sent, received bool // it passes
	}{
		{1, 256, true, true}, {1, 257, false, true}, {1, 1280, false, true}, {1, 1281, false, false},
		{2, 1280, true, true}, {2, 1281, false, false}, {137, 100, false, false},
	} {
		out, tr := closedOn(t, compile.Host{})
		for _, hook := range out.Ruleset.Hooks[:2] {
			require.Empty(t, hook.Match)
		}
		p := packet{protocol: policy.ICMPv6, icmpType: row.icmpType, bytes: row.bytes, related: true, source: pod, destination: other}
		require.Equal(t, !row.sent, tr.dropped(compile.ForwardChain, &p), "%+v", row)
		require.Equal(t, !row.sent, tr.dropped(compile.InputChain, &p), "%+v", row)
		p.source, p.destination = other, pod
		require.Equal(t, !row.received, tr.dropped(compile.ForwardChain, &p), "%+v", row)
		p.destination = netip.MustParseAddr("2001:db8::2")
		require.False(t, tr.dropped(compile.ForwardChain, &p), "%+v", row)
		for _, lacks := range []compile.Extension{compile.Length, compile.ICMP} {
			_, tr = closedOn(t, compile.Host{Lacks: []compile.Extension{lacks}})
			p.source, p.destination = other, pod
			dropped := tr.dropped(compile.ForwardChain, &p)
			require.True(t, !dropped || !row.received, "without %s less is dropped: %+v", lacks, row)
		}
	}
}
