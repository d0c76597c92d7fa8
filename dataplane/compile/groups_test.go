package compile_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// A frame to a group that carries a packet to one host is dropped, on closed links alone.
// Packets to groups pass to where they are judged.
func TestFramesToGroupsCarryPacketsToGroups(t *testing.T) {
	rows := []struct {
		to    string
		drops bool
	}{
		{"10.244.1.11", true}, {"192.0.2.7", true}, {"0.0.0.0", true}, {"fd00::11", true}, {"fe80::1", true}, {"2001:db8::7", true},
		{"10.244.1.255", false}, {"255.255.255.255", false}, {"224.0.0.251", false}, {"ff02::1", false}, {"ff0e::1", false},
	}
	for _, links := range []compile.Links{{}, {policy.Ingress: {bridge}}, {policy.Egress: {bridge}}} {
		for _, row := range rows {
			p := packet{destination: netip.MustParseAddr(row.to), protocol: policy.UDP, groupFrame: true}
			family := ruleset.IPv4
			if p.destination.Is6() {
				family = ruleset.IPv6
			}
			tr := linkTracer(t, family, links)
			p.in = bridge
			require.Equal(t, row.drops && links.Closed(), tr.dropped(compile.EarlyChain, &p), "links %v, to %s", links, row.to)
			p.in = "eth0"
			require.Equal(t, row.to == "0.0.0.0" && links.Closed(), tr.dropped(compile.EarlyChain, &p), "links %v, to %s", links, row.to)
		}
	}
}

// Where rules can't match frames to groups, no packet is dropped, and the hook has a condition
// that every version of the agent knows.
func TestFramesToGroupsWithoutTheMatch(t *testing.T) {
	for _, family := range ruleset.Families() {
		for _, lacks := range [][]compile.Extension{nil, {compile.GroupFrames}} {
			out := compile.Compile(compile.Host{Lacks: lacks}, family, nil, compile.Links{{bridge}, {bridge}}, compile.Guard{})
			hook := out.Ruleset.Hooks[len(out.Ruleset.Hooks)-1]
			require.Equal(t, compile.EarlyHook, hook.Builtin)
			match := ruleset.Match(ruleset.GroupFrameMatch{})
			if lacks != nil {
				match = ruleset.UnestablishedMatch{}
			}
			require.Equal(t, []ruleset.Match{match}, hook.Match)
			for _, chain := range out.Ruleset.Chains {
				if chain.Name == compile.EarlyChain {
					require.Equal(t, lacks != nil, len(chain.Rules) == 0)
				}
			}
		}
	}
}

// A connection that was let through passes, unless it was opened from or to a group.
func TestConnectionsOfGroupsAreJudgedAsNew(t *testing.T) {
	broadcast := netip.MustParseAddr("10.244.1.255")
	for to, passes := range map[string]bool{
		"10.244.1.11": true, "240.0.0.1": true, "fd00::11": true,
		"224.0.0.1": false, "239.1.2.3": false, "255.255.255.255": false, broadcast.String(): false, "ff02::1": false, "ff0e::1": false,
	} {
		p := packet{source: netip.MustParseAddr("fe80::a"), destination: netip.MustParseAddr("ff02::7"), protocol: policy.UDP, in: bridge, out: bridge}
		group, family := netip.MustParseAddr(to), ruleset.IPv6
		if group.Is4() {
			family, p.source, p.destination = ruleset.IPv4, netip.MustParseAddr("10.244.1.10"), broadcast
		}
		out := compile.Compile(compile.Host{Broadcasts: []netip.Addr{broadcast}}, family, nil, compile.Links{{bridge}, {bridge}}, compile.Guard{})
		tr := newTracer(t, &out.Ruleset, contents(&out, &policy.Cluster{}))
		for _, p.opened = range [][2]netip.Addr{{p.source, group}, {group, p.source}} {
			require.Equal(t, passes, !tr.dropped(compile.ForwardChain, &p), "%v", p.opened)
		}
	}
}
