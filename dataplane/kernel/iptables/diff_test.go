package iptables_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// someTable is a small desired state: hooks, a dispatch chain and the profile chains named.
func someTable(profiles ...string) iptables.Table {
	dispatch := ruleset.Chain{Name: "MOAT-INGRESS"}
	rs := &ruleset.Ruleset{Hooks: []ruleset.Hook{
		{Builtin: "FORWARD", Match: []ruleset.Match{ruleset.UnestablishedMatch{}}, Chain: "MOAT-FORWARD"},
		{Builtin: "INPUT", Chain: "MOAT-INPUT"},
		{Builtin: "PREROUTING", Match: []ruleset.Match{ruleset.GroupFrameMatch{}}, Chain: "MOAT_PREROUTING"},
	}}
	for _, name := range profiles {
		chain := ruleset.Chain{Name: "MOAT-I-" + name, Rules: []ruleset.Rule{{Action: ruleset.Drop}}}
		rs.Chains = append(rs.Chains, chain)
		dispatch.Rules = append(dispatch.Rules, ruleset.Rule{Action: ruleset.Goto, Target: chain.Name})
	}
	rs.Chains = append(rs.Chains, dispatch,
		ruleset.Chain{Name: "MOAT-FORWARD", Rules: []ruleset.Rule{{Action: ruleset.Jump, Target: "MOAT-INGRESS"}}},
		ruleset.Chain{Name: "MOAT-INPUT"},
		ruleset.Chain{Name: "MOAT_PREROUTING", Rules: []ruleset.Rule{{Action: ruleset.Drop}}},
	)
	return iptables.Desired(rs)
}

// foreignRules are what other programs have in the table.
var foreignRules = map[string][]string{
	"FORWARD":      {`-m comment --comment "kubernetes forwarding rules" -j KUBE-FORWARD`, "-j FLANNEL-FWD"},
	"INPUT":        {"-j KUBE-FORWARD"},
	"KUBE-FORWARD": {"-m conntrack --ctstate INVALID -j DROP"},
	"FLANNEL-FWD":  {"-s 10.244.0.0/16 -j ACCEPT", "-d 10.244.0.0/16 -j ACCEPT"},
}

// bring takes the fake to the wanted state and returns the change.
func bring(t *testing.T, f *fakeTable, want iptables.Table) iptables.Change {
	t.Helper()
	change := iptables.Diff(iptables.ParseSave(f.save(), prefix), want)
	requireOwnLinesOnly(t, change.Script())
	require.NoError(t, f.restore(change.Script()), change.Script())
	got := iptables.ParseSave(f.save(), prefix)
	rest := change.Missing(got)
	require.True(t, rest.Empty(), "missing afterwards: %s", rest)
	if want.Chains != nil {
		require.Equal(t, want, got, "what was written reads back")
	}
	for builtin := range want.Hooks {
		require.Equal(t, want.Hooks[builtin][0].Rule, f.chains[builtin][0], "the hook of %s comes first", builtin)
	}
	return change
}

// requireOwnLinesOnly checks that a script names no other program's chain, except a built-in chain
// to put a hook in or to take one out.
func requireOwnLinesOnly(t *testing.T, script string) {
	t.Helper()
	lines := strings.Split(strings.TrimSuffix(script, "\n"), "\n")
	require.Equal(t, "*mangle", lines[0])
	require.Equal(t, "COMMIT", lines[len(lines)-1])
	for _, line := range lines[1 : len(lines)-1] {
		words := strings.Fields(withoutConditions(strings.TrimPrefix(line, ":")))
		switch {
		case strings.HasPrefix(line, ":"):
			requireOwn(t, words[0], line)
		case words[0] == "-A" || words[0] == "-X":
			requireOwn(t, words[1], line)
		case words[0] == "-D":
			require.Contains(t, builtins, words[1], line)
			require.Equal(t, "-j", words[2], line)
			requireOwn(t, words[3], line)
			require.Len(t, words, 4, line)
		default:
			require.Equal(t, []string{"-I", "1", "-j"}, []string{words[0], words[2], words[3]}, line)
			require.Contains(t, builtins, words[1], line)
			requireOwn(t, words[4], line)
			require.Len(t, words, 5, line)
		}
	}
}

// withoutConditions takes those of hooks out of a line.
func withoutConditions(line string) string {
	return strings.Replace(strings.Replace(line, unestablished, "", 1), "-m pkttype ! --pkt-type unicast ", "", 1)
}

func requireOwn(t *testing.T, chain, line string) {
	t.Helper()
	require.True(t, strings.HasPrefix(chain, prefix) || strings.HasPrefix(chain, "MOAT_"), line)
}

func TestDiffFromNothing(t *testing.T) {
	change := iptables.Diff(iptables.Table{}, someTable("a"))
	require.Equal(t, []string{"MOAT-FORWARD", "MOAT-I-a", "MOAT-INGRESS", "MOAT-INPUT", "MOAT_PREROUTING"}, change.Write)
	require.Empty(t, change.Delete)
	require.Equal(t, []string{"FORWARD", "INPUT", "PREROUTING"}, change.Rehook)
	require.False(t, change.Empty())
	require.Equal(t, "MOAT-FORWARD, MOAT-I-a, MOAT-INGRESS, MOAT-INPUT, MOAT_PREROUTING, FORWARD, INPUT, PREROUTING", change.String())
	require.Equal(t, `*mangle
:MOAT-FORWARD - [0:0]
:MOAT-I-a - [0:0]
:MOAT-INGRESS - [0:0]
:MOAT-INPUT - [0:0]
:MOAT_PREROUTING - [0:0]
-A MOAT-FORWARD -j MOAT-INGRESS
-A MOAT-I-a -j DROP
-A MOAT-INGRESS -g MOAT-I-a
-A MOAT_PREROUTING -j DROP
-I FORWARD 1 -m conntrack ! --ctstate RELATED,ESTABLISHED -j MOAT-FORWARD
-I INPUT 1 -j MOAT-INPUT
-I PREROUTING 1 -m pkttype ! --pkt-type unicast -j MOAT_PREROUTING
COMMIT
`, change.Script())
}

// A change rewrites what it changes and nothing else.
func TestDiffIsSmall(t *testing.T) {
	change := iptables.Diff(someTable("a"), someTable("a", "b"))
	require.Equal(t, []string{"MOAT-I-b", "MOAT-INGRESS"}, change.Write)
	require.Empty(t, change.Delete)
	require.Empty(t, change.Rehook)

	change = iptables.Diff(someTable("a", "b"), someTable("a"))
	require.Equal(t, []string{"MOAT-INGRESS"}, change.Write)
	require.Equal(t, []string{"MOAT-I-b"}, change.Delete)

	change = iptables.Diff(someTable("a"), someTable("a"))
	require.True(t, change.Empty())
}

func TestThereAndBack(t *testing.T) {
	f := newFakeFilter(foreignRules)
	before := f.save()
	bring(t, f, someTable("a"))
	first := f.save()
	bring(t, f, someTable("b", "c"))
	require.NotContains(t, f.save(), "MOAT-I-a")
	bring(t, f, someTable("a"))
	require.Equal(t, first, f.save(), "A, B, A ends where it began")

	again := bring(t, f, someTable("a"))
	require.True(t, again.Empty())
	bring(t, f, iptables.Table{})
	require.Equal(t, before, f.save(), "removed without a trace")
}

func TestHooksAreRepaired(t *testing.T) {
	const hook = unestablished + "-j MOAT-FORWARD"
	for name, rules := range map[string][]string{
		"of all":       {"-j MOAT-FORWARD", "-j FLANNEL-FWD"}, // as older versions had it
		"gone":         {"-j FLANNEL-FWD"},
		"moved":        {"-j FLANNEL-FWD", hook},
		"twice":        {hook, "-j FLANNEL-FWD", hook},
		"many times":   {"-j FLANNEL-FWD", hook, hook, hook, hook},
		"to elsewhere": {"-j MOAT-OLD", "-j FLANNEL-FWD"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeFilter(foreignRules)
			bring(t, f, someTable("a"))
			f.chains["MOAT-OLD"] = []string{"-j DROP"}
			f.chains["FORWARD"] = rules

			change := bring(t, f, someTable("a"))
			require.Equal(t, []string{"FORWARD"}, change.Rehook)
			require.Equal(t, []string{hook, "-j FLANNEL-FWD"}, f.chains["FORWARD"])
			require.NotContains(t, f.chains, "MOAT-OLD")
		})
	}
}

// A hook in a built-in chain that an older version used goes.
func TestStaleHookGoes(t *testing.T) {
	f := newFakeFilter(foreignRules)
	bring(t, f, someTable("a"))
	f.chains["MOAT-OUTPUT"] = []string{"-j DROP"}
	f.chains["OUTPUT"] = []string{"-j MOAT-OUTPUT"}

	change := bring(t, f, someTable("a"))
	require.Equal(t, []string{"OUTPUT"}, change.Rehook)
	require.Empty(t, f.chains["OUTPUT"])
	require.NotContains(t, f.chains, "MOAT-OUTPUT")
}

// Rules that other programs change in Moat's chains are put right.
func TestChainsAreRepaired(t *testing.T) {
	f := newFakeFilter(foreignRules)
	bring(t, f, someTable("a"))
	f.chains["MOAT-I-a"] = []string{"-j ACCEPT", "-j DROP"}
	delete(f.chains, "MOAT-INPUT")
	f.chains["INPUT"] = foreignRules["INPUT"]

	change := bring(t, f, someTable("a"))
	require.Equal(t, []string{"MOAT-I-a", "MOAT-INPUT"}, change.Write)
	require.Equal(t, []string{"-j DROP"}, f.chains["MOAT-I-a"])
}

// The transaction fails as a whole if another program has just deleted the hook.
func TestRaceForTheHookFailsWhole(t *testing.T) {
	f := newFakeFilter(foreignRules)
	bring(t, f, someTable("a"))
	f.chains["FORWARD"] = append([]string{"-j FLANNEL-FWD"}, f.chains["FORWARD"]...)
	change := iptables.Diff(iptables.ParseSave(f.save(), prefix), someTable("b"))

	f.chains["FORWARD"] = foreignRules["FORWARD"]
	before := f.save()
	require.Error(t, f.restore(change.Script()))
	require.Equal(t, before, f.save())
	bring(t, f, someTable("b"))
}

// Whatever state the table is in, one change brings it to what is wanted, and other programs'
// rules stay as they are.
func TestRandomTransitions(t *testing.T) {
	source := rand.New(rand.NewPCG(3, 4))
	f := newFakeFilter(foreignRules)
	for range 500 {
		vandalise(source, f)
		var profiles []string
		for i := range source.IntN(4) {
			profiles = append(profiles, fmt.Sprint(i+source.IntN(5)*10))
		}
		bring(t, f, someTable(profiles...))
		for name, rules := range foreignRules {
			kept := slices.DeleteFunc(slices.Clone(f.chains[name]), func(rule string) bool { return strings.HasPrefix(target(rule), prefix) })
			require.Equal(t, rules, kept, name)
		}
	}
}

// vandalise does to Moat's chains and hooks what other programs might do.
func vandalise(source *rand.Rand, f *fakeTable) {
	builtin := builtins[source.IntN(len(builtins))]
	rules := f.chains[builtin]
	switch source.IntN(5) {
	case 0: // a second hook somewhere
		if _, exists := f.chains["MOAT-FORWARD"]; exists {
			f.chains[builtin] = slices.Insert(slices.Clone(rules), source.IntN(len(rules)+1), "-j MOAT-FORWARD")
		}
	case 1: // all hooks gone
		f.chains[builtin] = slices.DeleteFunc(slices.Clone(rules), func(rule string) bool { return strings.HasPrefix(target(rule), prefix) })
	case 2: // an unknown chain
		f.chains[fmt.Sprintf("MOAT-STALE-%d", source.IntN(3))] = []string{"-j DROP"}
	case 3: // a chain changed
		if _, exists := f.chains["MOAT-INGRESS"]; exists {
			f.chains["MOAT-INGRESS"] = []string{"-j ACCEPT"}
		}
	}
}
