package compile_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// ofCut are the matches of the packets of cut connections: to servers, to clients, and
// to clients once the connection is forgotten.
func ofCut(set string) [3]string {
	return [3]string{
		"-m conntrack --ctstate ESTABLISHED --ctdir ORIGINAL -m set --match-set " + set + " src,dst,dst",
		"-m conntrack --ctstate ESTABLISHED --ctdir REPLY -m set --match-set " + set + " dst,src,src",
		"-p tcp -m tcp ! --tcp-flags SYN,ACK SYN -m conntrack --ctstate INVALID,NEW -m set --match-set " + set + " dst,src,src",
	}
}

// pass lets the packets of all other connections return.
const pass = "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"

// Nothing to cut costs no rule and no set, and no packet of a connection that was let
// through comes to the chains. Otherwise they come, and are dropped before they could return.
func TestCut(t *testing.T) {
	for _, family := range ruleset.Families() {
		plain := compile.Compile(compile.Host{}, family, nil, compile.Links{}, compile.Guard{})
		output := compile.Compile(compile.Host{}, family, nil, compile.Links{}, compile.Guard{})
		output.Cut(compile.Cuts{}, compile.Links{})
		require.Equal(t, plain, output)

		member := ruleset.Address(netip.MustParseAddr("10.244.1.10"))
		output.Cut(compile.Cuts{compile.ByPolicy: {member: {}}, compile.ByLink: {member: {}}}, compile.Links{})
		set := compile.CutSet(family, compile.ByPolicy)
		cut := ofCut(set)
		before, after := iptables.Desired(&plain.Ruleset).Chains, iptables.Desired(&output.Ruleset).Chains
		drops := []string{cut[0] + " -j DROP", cut[1] + " -j DROP", cut[2] + " -j DROP"}
		require.Equal(t, slices.Concat(drops, []string{pass}, before[compile.ForwardChain]), after[compile.ForwardChain])
		require.Equal(t, slices.Concat(drops[:2], []string{pass}, before[compile.InputChain]), after[compile.InputChain])
		require.Len(t, after, len(before))
		requireLed(t, plain, output)
		require.Contains(t, output.Ruleset.Sets, ruleset.Set{Name: set, Type: ruleset.HashIPPortIP, Family: family, Entering: ruleset.Closes})
		require.Len(t, output.Ruleset.Sets, len(plain.Ruleset.Sets)+1)
		require.Len(t, output.Cuts[compile.ByPolicy], 1)
		require.Nil(t, output.Cuts[compile.ByLink], "no link is closed")
	}
}

// What is cut by link is dropped on closed links alone: on the way to the server by
// the rules that new connections meet, on the way back by their mirror.
func TestCutByLink(t *testing.T) {
	links := compile.Links{policy.Ingress: {"br0", bridge}, policy.Egress: {bridge}}
	cuts := compile.Cuts{compile.ByLink: {ruleset.Address(netip.MustParseAddr("fe80::a")): {}}}
	plain := compile.Compile(compile.Host{}, ruleset.IPv6, nil, links, compile.Guard{})
	output := compile.Compile(compile.Host{}, ruleset.IPv6, nil, links, compile.Guard{})
	output.Cut(cuts, links)
	cut := ofCut("moat-6-cut-link")
	before, after := iptables.Desired(&plain.Ruleset).Chains, iptables.Desired(&output.Ruleset).Chains
	forward := []string{cut[0] + " -j MOAT-LINK", cut[1] + " -j MOAT-LINK-ANSWER", cut[2] + " -j MOAT-LINK-ANSWER"}
	require.Equal(t, slices.Concat(forward, before[compile.ForwardChain]), after[compile.ForwardChain])
	require.Equal(t, slices.Concat(forward[:1], before[compile.InputChain]), after[compile.InputChain])
	require.Equal(t, plain.Ruleset.Hooks, output.Ruleset.Hooks, "where a link is closed, connections come to the chains anyway")
	require.Equal(t, before[compile.LinkChain], after[compile.LinkChain])
	require.ElementsMatch(t, []string{
		"-s fe80::/10 -i br0 -j DROP", "-s fe80::/10 -i " + bridge + " -j DROP", "-d fe80::/10 -o " + bridge + " -j DROP",
	}, after[compile.AnswerChain])

	output = compile.Compile(compile.Host{}, ruleset.IPv4, nil, links, compile.Guard{})
	plain = output
	output.Cut(cuts, links)
	require.Equal(t, plain, output, "IPv4 has none")
}

// requireLed requires that established connections come to the chains because of the cuts.
func requireLed(t *testing.T, plain, output compile.Output) {
	t.Helper()
	for i, hook := range output.Ruleset.Hooks {
		if hook.Builtin == compile.EarlyHook {
			require.Equal(t, plain.Ruleset.Hooks[i], hook)
			continue
		}
		require.Empty(t, hook.Match, "established connections come to it")
		require.Equal(t, []ruleset.Match{ruleset.UnestablishedMatch{}}, plain.Ruleset.Hooks[i].Match)
	}
}
