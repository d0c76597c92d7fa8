package dataplane

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// What the kernel refused is not what the kernel holds: sizes, isolated sets and the
// search for others' changes count without it, until it leaves.
func TestRefusalsAreNotWhatTheKernelHolds(t *testing.T) {
	change := func(set, addr string) ipset.Change {
		return ipset.Change{Set: set, Type: ruleset.HashIP, Member: ruleset.Address(netip.MustParseAddr(addr))}
	}
	bad, good := change("peers", "0.0.0.0"), change("peers", "10.0.0.1")
	e := &enforcer{}
	plan := &ipset.Plan{Add: []ipset.Change{bad, good}}
	require.Same(t, plan, e.refusals.outOfPlan(plan), "no copy where nothing is refused")

	e.leaveOut(bad, errors.New("refused"))
	require.Equal(t, []ipset.Change{good}, e.refusals.outOfPlan(plan).Add)
	require.Len(t, plan.Add, 2)
	state := ipset.State{
		"peers": {Name: "peers", Members: ruleset.Members{bad.Member: {}, good.Member: {}}},
		"other": {Name: "other", Members: ruleset.Members{bad.Member: {}}},
	}
	require.Equal(t, ruleset.Members{good.Member: {}}, e.refusals.outOfSets(state)["peers"].Members)
	require.Len(t, e.refusals.outOfSets(state)["other"].Members, 1, "another set took it")
	require.Len(t, state["peers"].Members, 2)

	leaving := &ipset.Plan{Delete: []ipset.Change{bad}}
	require.Empty(t, e.refusals.outOfPlan(leaving).Delete)
	e.refusals.forget(leaving)
	require.Empty(t, e.refusals)
	e.leaveOut(bad, errors.New("refused"))
	e.refusals.forget(&ipset.Plan{Destroy: []string{"peers"}})
	require.Empty(t, e.refusals)
}
