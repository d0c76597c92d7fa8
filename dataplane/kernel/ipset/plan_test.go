package ipset_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

func set(name string, kind ruleset.SetType, members ...string) ruleset.Set {
	s := ruleset.Set{Name: name, Type: kind, Family: ruleset.IPv4, Members: ruleset.Members{}}
	for _, text := range members {
		s.Members[member(text)] = struct{}{}
	}
	return s
}

// member reads an address or a prefix.
func member(text string) ruleset.Member {
	if addr, err := netip.ParseAddr(text); err == nil {
		return ruleset.Address(addr)
	}
	return ruleset.Member{Prefix: netip.MustParsePrefix(text)}
}

func state(sets ...ruleset.Set) ipset.State {
	s := ipset.State{}
	for _, one := range sets {
		s[one.Name] = one
	}
	return s
}

func change(name string, kind ruleset.SetType, text string) ipset.Change {
	return ipset.Change{Set: name, Type: kind, Member: member(text)}
}

func TestDiffCreates(t *testing.T) {
	s := set("a", ruleset.HashNet, "10.0.0.0/8", "9.0.0.0/8", "9.0.0.0/16")
	plan := ipset.Diff(nil, state(s, set("empty", ruleset.HashIP)))
	require.Equal(t, ipset.Plan{
		Create: []ruleset.Set{s, set("empty", ruleset.HashIP)},
		Add: []ipset.Change{
			change("a", ruleset.HashNet, "9.0.0.0/8"),
			change("a", ruleset.HashNet, "9.0.0.0/16"),
			change("a", ruleset.HashNet, "10.0.0.0/8"),
		},
	}, plan)
}

func TestDiffChangesMembers(t *testing.T) {
	have := state(set("a", ruleset.HashIP, "10.0.0.1", "10.0.0.2"))
	want := state(set("a", ruleset.HashIP, "10.0.0.2", "10.0.0.3"))
	require.Equal(t, ipset.Plan{
		Add:    []ipset.Change{change("a", ruleset.HashIP, "10.0.0.3")},
		Delete: []ipset.Change{change("a", ruleset.HashIP, "10.0.0.1")},
	}, ipset.Diff(have, want))
}

// Pairs of one address differ in protocol and port.
func TestDiffTellsPortsApart(t *testing.T) {
	withPorts := func(pairs ...[2]uint16) ruleset.Set {
		s := set("a", ruleset.HashIPPort)
		for _, pair := range pairs {
			m := member("10.0.0.1")
			m.Protocol, m.Port = uint8(pair[0]), pair[1]
			s.Members[m] = struct{}{}
		}
		return s
	}
	plan := ipset.Diff(state(withPorts([2]uint16{6, 80}, [2]uint16{6, 81})), state(withPorts([2]uint16{6, 80}, [2]uint16{17, 80}, [2]uint16{6, 90})))
	require.Len(t, plan.Add, 2)
	require.Equal(t, []uint16{90, 80}, []uint16{plan.Add[0].Member.Port, plan.Add[1].Member.Port}, "TCP before UDP")
	require.Len(t, plan.Delete, 1)
	require.EqualValues(t, 81, plan.Delete[0].Member.Port)
}

func TestDiffDestroys(t *testing.T) {
	plan := ipset.Diff(state(set("b", ruleset.HashIP, "10.0.0.1"), set("a", ruleset.HashIP)), nil)
	require.Equal(t, ipset.Plan{Destroy: []string{"a", "b"}}, plan, "a set goes with its members")
}

// A set of the wrong type or family is replaced, with all its members.
func TestDiffReplaces(t *testing.T) {
	want := set("a", ruleset.HashNet, "10.0.0.0/8", "10.0.0.1/32")
	wrongFamily := want
	wrongFamily.Family = ruleset.IPv6
	for name, have := range map[string]ruleset.Set{
		"type":   set("a", ruleset.HashIP, "10.0.0.1", "10.0.0.2"),
		"family": wrongFamily,
	} {
		plan := ipset.Diff(state(have), state(want))
		require.Equal(t, []string{"a"}, plan.Replace, name)
		require.Equal(t, []ruleset.Set{want}, plan.Create, name)
		require.Len(t, plan.Add, 2, name)
		require.Empty(t, plan.Delete, name)
		require.Empty(t, plan.Destroy, name)
	}
}

func TestNothingToDo(t *testing.T) {
	same := state(set("a", ruleset.HashIP, "10.0.0.1"))
	require.Equal(t, ipset.Plan{}, ipset.Diff(same, same))
}

func TestAppend(t *testing.T) {
	a := ipset.Diff(state(set("old", ruleset.HashIP)), state(set("x", ruleset.HashIP, "10.0.0.1")))
	a.Append(ipset.Diff(state(set("y", ruleset.HashNet), set("older", ruleset.HashIP), set("z", ruleset.HashIP, "10.0.0.9")), state(set("y", ruleset.HashIP, "10.0.0.2"), set("z", ruleset.HashIP))))
	require.Equal(t, ipset.Plan{
		Replace: []string{"y"},
		Create:  []ruleset.Set{set("x", ruleset.HashIP, "10.0.0.1"), set("y", ruleset.HashIP, "10.0.0.2")},
		Add:     []ipset.Change{change("x", ruleset.HashIP, "10.0.0.1"), change("y", ruleset.HashIP, "10.0.0.2")},
		Delete:  []ipset.Change{change("z", ruleset.HashIP, "10.0.0.9")},
		Destroy: []string{"old", "older"},
	}, a)
}

// carryOut is a fake kernel: it changes a state as the kernel would, and refuses what it refuses.
func carryOut(t *testing.T, s ipset.State, plan ipset.Plan) {
	t.Helper()
	for _, name := range plan.Replace {
		require.Contains(t, s, name)
		delete(s, name)
	}
	for _, created := range plan.Create {
		require.NotContains(t, s, created.Name)
		created.Members = ruleset.Members{}
		s[created.Name] = created
	}
	for _, c := range plan.Add {
		require.Equal(t, s[c.Set].Type, c.Type)
		require.NotContains(t, s[c.Set].Members, c.Member)
		s[c.Set].Members[c.Member] = struct{}{}
	}
	for _, c := range plan.Delete {
		require.Contains(t, s[c.Set].Members, c.Member)
		delete(s[c.Set].Members, c.Member)
	}
	for _, name := range plan.Destroy {
		require.Contains(t, s, name)
		delete(s, name)
	}
}

func TestRandomTransitions(t *testing.T) {
	source := rand.New(rand.NewPCG(5, 6))
	kernel := ipset.State{}
	for range 300 {
		want := randomState(source)
		carryOut(t, kernel, ipset.Diff(kernel, want))
		require.Equal(t, want, kernel)
	}
}

func randomState(source *rand.Rand) ipset.State {
	s := ipset.State{}
	for i := range 6 {
		if source.IntN(3) == 0 {
			continue
		}
		kind := []ruleset.SetType{ruleset.HashIP, ruleset.HashNet}[source.IntN(2)]
		one := set(fmt.Sprintf("set-%d", i), kind)
		one.Family = ruleset.Families()[source.IntN(2)]
		for range source.IntN(5) {
			one.Members[member(fmt.Sprintf("10.0.0.%d", source.IntN(8)))] = struct{}{}
		}
		s[one.Name] = one
	}
	return s
}
