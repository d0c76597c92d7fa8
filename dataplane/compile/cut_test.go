package compile_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Nothing to cut costs no rule and no set, and no packet of a connection that was let
// through comes to the chains. Otherwise they come, and are dropped before they could return.
func TestCut(t *testing.T) {
	for _, family := range ruleset.Families() {
		plain := compile.Compile(family, nil, compile.Links{}, compile.Guard{})
		output := compile.Compile(family, nil, compile.Links{}, compile.Guard{})
		output.Cut(nil)
		require.Equal(t, plain, output)

		member := ruleset.Address(netip.MustParseAddr("10.244.1.10"))
		output.Cut(ruleset.Members{member: {}})
		set := compile.CutSet(family)
		forth := "-m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -m set --match-set " + set + " src,dst,dst -j DROP"
		back := "-m conntrack --ctstate ESTABLISHED --ctdir REPLY -m set --match-set " + set + " dst,src,src -j DROP"
		late := "-p tcp -m tcp ! --tcp-flags SYN,ACK SYN -m conntrack --ctstate INVALID,NEW -m set --match-set " + set + " dst,src,src -j DROP"
		before, after := iptables.Desired(&plain.Ruleset).Chains, iptables.Desired(&output.Ruleset).Chains
		const pass = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
		require.Equal(t, append([]string{forth, back, late, pass}, before[compile.ForwardChain]...), after[compile.ForwardChain])
		require.Equal(t, append([]string{forth, pass}, before[compile.InputChain]...), after[compile.InputChain])
		for i, hook := range output.Ruleset.Hooks {
			require.Empty(t, hook.Match, "established connections come to it")
			require.Equal(t, []ruleset.Match{ruleset.UnestablishedMatch{}}, plain.Ruleset.Hooks[i].Match)
		}
		require.Contains(t, output.Ruleset.Sets, ruleset.Set{Name: set, Type: ruleset.HashIPPortIP, Family: family})
		require.Len(t, output.Cuts, 1)
	}
}
