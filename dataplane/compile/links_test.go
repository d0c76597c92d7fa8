package compile_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// A packet from an address that the API doesn't know counts as sent by a pod of the link that may
// not send everything. A packet to such an address counts as received by a pod that may not
// receive everything. Both hold on that link alone.
func TestUnknownAddressesAreJudgedByTheirLink(t *testing.T) {
	type ends = [policy.Directions]bool
	sender, receiver, neither := ends{policy.Egress: true}, ends{policy.Ingress: true}, ends{}
	rows := []struct {
		from, to string
		unknown  ends // by the direction of the pod that may be there
	}{
		{"fe80::a", "fe80::b", ends{true, true}},
		{"fe80::a", "ff02::1", ends{true, true}},
		{"fe80::a", "2001:db8::7", sender},
		{"2001:db8::7", "fe80::b", receiver},
		{"2001:db8::7", "ff02::1", receiver},
		{"2001:db8::7", "ff0e::1", receiver},
		{"2001:db8::7", "2001:db8::8", neither},
		{"2001:db8::7", "fec0::1", neither},
		{"192.0.2.7", "10.244.1.255", receiver},
		{"192.0.2.7", "255.255.255.255", receiver},
		{"192.0.2.7", "224.0.0.1", receiver},
		{"192.0.2.7", "239.255.255.250", receiver},
		{"192.0.2.7", "192.0.2.8", neither},
	}
	for _, restricted := range []ends{neither, sender, receiver, {true, true}} {
		var links compile.Links
		for d := range links {
			if restricted[d] {
				links[d] = []string{"br0", bridge}
			}
		}
		closes := func(d policy.Direction, link string, unknown ends) bool {
			return unknown[d] && slices.Contains(links[d], link)
		}
		for _, row := range rows {
			p := packet{source: netip.MustParseAddr(row.from), destination: netip.MustParseAddr(row.to), protocol: policy.UDP, port: 80}
			family := ruleset.IPv4
			if p.source.Is6() {
				family = ruleset.IPv6
			}
			tr := linkTracer(t, family, links)
			for _, p.in = range []string{bridge, "virbr0"} {
				for _, p.out = range []string{bridge, "virbr0"} {
					want := closes(policy.Egress, p.in, row.unknown) || closes(policy.Ingress, p.out, row.unknown)
					require.Equal(t, want, tr.dropped(compile.ForwardChain, &p), "links %v, packet %+v", links, p)
				}
				p.out = ""
				require.Equal(t, closes(policy.Egress, p.in, row.unknown), tr.dropped(compile.InputChain, &p), "links %v, packet %+v to the node", links, p)
			}
		}
	}
}

// linkTracer traces through a node of which only the links are known, and no pod.
func linkTracer(t *testing.T, family ruleset.Family, links compile.Links) *tracer {
	out := compile.Compile(compile.Host{}, family, nil, links, compile.Guard{})
	return newTracer(t, &out.Ruleset, contents(&out, &policy.Cluster{}))
}

// Neighbour discovery and multicast listener discovery keep the link alive, and
// their addresses are link-local. Only the node advertises itself as a router, and
// what it sends isn't forwarded.
func TestLinksKeepWorking(t *testing.T) {
	tr := linkTracer(t, ruleset.IPv6, compile.Links{{bridge}, {bridge}})
	p := packet{source: netip.MustParseAddr("fe80::a"), protocol: policy.ICMPv6, in: bridge, out: bridge}
	const solicitation, advertisement = 133, 134 // of routers
	neighbours := []uint8{135, 136}
	listening := []uint8{130, 131, 132, 143}
	for icmpType := range 256 {
		p.icmpType = uint8(icmpType)
		p.destination = netip.MustParseAddr("ff02::16")
		toGroup := slices.Contains(neighbours, p.icmpType) || slices.Contains(listening, p.icmpType)
		require.Equal(t, !toGroup, tr.dropped(compile.ForwardChain, &p), "type %d", icmpType)
		require.Equal(t, !toGroup && icmpType != solicitation, tr.dropped(compile.InputChain, &p), "type %d", icmpType)
		p.destination = netip.MustParseAddr("fe80::b")
		require.Equal(t, !slices.Contains(neighbours, p.icmpType), tr.dropped(compile.ForwardChain, &p), "type %d", icmpType)
		p.destination, p.bytes = netip.MustParseAddr("ff02::16"), 1200
		require.True(t, tr.dropped(compile.ForwardChain, &p), "type %d with 1200 bytes", icmpType)
		p.bytes = 0
	}

	p.icmpType, p.in, p.out = advertisement, "virbr0", "virbr0"
	require.False(t, tr.dropped(compile.ForwardChain, &p), "other links are left alone")
}
