package iptables

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// rulesOf are the rules of the IPv4 table of nft alone.
func rulesOf(chains, firsts map[string]uint64) Rules {
	r := Rules{taken: true, generation: 7}
	r.nft[0] = Imprint{chains: chains, firsts: firsts}
	return r
}

// What differs from what was left is unknown, and nothing else is.
func TestUnread(t *testing.T) {
	hook := []HookPosition{{Rule: "-j MOAT-FORWARD"}}
	table := Table{
		Chains: map[string][]string{"MOAT-A": {"-j DROP"}, "MOAT-B": {"-j RETURN"}, "MOAT-GONE": {"-j DROP"}},
		Hooks:  map[string][]HookPosition{"FORWARD": hook, "INPUT": {{Rule: "-j MOAT-INPUT"}}},
	}
	left := rulesOf(map[string]uint64{"MOAT-A": 1, "MOAT-B": 2, "MOAT-GONE": 3, "FORWARD": 4}, map[string]uint64{"FORWARD": 5, "INPUT": 6})
	now := rulesOf(map[string]uint64{"MOAT-A": 1, "MOAT-B": 9, "MOAT-NEW": 3, "FORWARD": 9}, map[string]uint64{"FORWARD": 5, "INPUT": 9})
	names := []string{"MOAT-A", "MOAT-B", "MOAT-NEW"}
	require.Equal(t, Table{
		Chains: map[string][]string{"MOAT-A": {"-j DROP"}, "MOAT-B": {unread}, "MOAT-NEW": {unread}},
		Hooks:  map[string][]HookPosition{"FORWARD": hook},
	}, Unread(names, now, left, NFT, ruleset.IPv4, table))
	change := Diff(Unread(names, now, left, NFT, ruleset.IPv4, table), table)
	require.Equal(t, []string{"MOAT-B", "MOAT-GONE"}, change.Write)
	require.Equal(t, []string{"MOAT-NEW"}, change.Delete)
	require.Equal(t, []string{"INPUT"}, change.Rehook)

	nothing := Unread(names, now, Rules{}, NFT, ruleset.IPv4, table)
	require.Empty(t, nothing.Hooks)
	require.Equal(t, []string{unread}, nothing.Chains["MOAT-A"], "nothing was known")
}

func TestRulesKeep(t *testing.T) {
	left := rulesOf(map[string]uint64{"MOAT-A": 1, "OTHER": 2}, map[string]uint64{"FORWARD": 5})
	keep := func(chains, firsts map[string]uint64) bool {
		return rulesOf(chains, firsts).Keep(left, NFT, ruleset.IPv4, "MOAT-")
	}
	require.True(t, keep(map[string]uint64{"MOAT-A": 1, "OTHER": 9}, map[string]uint64{"FORWARD": 5}), "others' chains don't matter")
	require.False(t, keep(map[string]uint64{"OTHER": 2}, map[string]uint64{"FORWARD": 5}), "flushed")
	require.False(t, keep(map[string]uint64{"MOAT-A": 1, "MOAT-B": 1}, map[string]uint64{"FORWARD": 5}))
	require.False(t, keep(map[string]uint64{"MOAT-A": 1}, map[string]uint64{"FORWARD": 6}), "not first")
	require.False(t, Rules{}.Keep(left, NFT, ruleset.IPv4, "MOAT-"))
}

// Each of the hooks may be there or not.
func TestAssumptions(t *testing.T) {
	rule := func(text string) []HookPosition { return []HookPosition{{Rule: text}} }
	want := Table{Hooks: map[string][]HookPosition{"FORWARD": rule("-j MOAT-FORWARD"), "INPUT": rule("-j MOAT-INPUT")}}
	change := Diff(Table{Chains: map[string][]string{}, Hooks: map[string][]HookPosition{}}, want)
	var scripts []string
	for _, assumed := range change.assumptions() {
		scripts = append(scripts, assumed.Script())
	}
	const forward, input = "-I FORWARD 1 -j MOAT-FORWARD\n", "-I INPUT 1 -j MOAT-INPUT\n"
	require.Equal(t, []string{
		"*mangle\n-D FORWARD -j MOAT-FORWARD\n" + forward + "-D INPUT -j MOAT-INPUT\n" + input + "COMMIT\n",
		"*mangle\n" + forward + "-D INPUT -j MOAT-INPUT\n" + input + "COMMIT\n",
		"*mangle\n-D FORWARD -j MOAT-FORWARD\n" + forward + input + "COMMIT\n",
		"*mangle\n" + forward + input + "COMMIT\n",
	}, scripts)
	change.want.Hooks["PREROUTING"] = rule(earlyCondition() + "-j MOAT_PREROUTING")
	stale := Diff(Table{}, change.want).staleHooks()
	require.Len(t, stale, 2)
	require.Equal(t, "*mangle\n-D FORWARD -m conntrack ! --ctstate RELATED,ESTABLISHED -j MOAT-FORWARD\nCOMMIT\n", stale[0].Script())
}
