package ipset_test

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// An element that the kernel refuses keeps no other element out, of its batch or of another set.
// OnRefused is called with it once. It is no error, neither when it enters nor when it leaves.
func TestARefusedElementHoldsNothingBack(t *testing.T) {
	inKernel(t, func(k *ipset.Kernel) {
		refused := map[ipset.Change]string{}
		k.OnRefused = func(change ipset.Change, err error) { refused[change] = err.Error() }
		want := everyKind(3000) // several batches
		asked, bad := ipset.State{}, map[ipset.Change]bool{}
		for name, set := range want {
			members := maps.Clone(set.Members)
			for _, text := range []string{"0.0.0.0", "::"} {
				addr := netip.MustParseAddr(text)
				if !set.Family.Holds(addr) || set.Type == ruleset.HashNet {
					continue
				}
				member := ruleset.Address(addr)
				if set.Type != ruleset.HashIP {
					member.Protocol, member.Port = 6, 80
				}
				if set.Type == ruleset.HashIPPortIP {
					member.Server = addr.Next()
				}
				members[member] = struct{}{}
				bad[ipset.Change{Set: name, Type: set.Type, Member: member}] = true
			}
			set.Members = members
			asked[name] = set
		}
		plan := ipset.Diff(nil, asked)
		require.NoError(t, k.Grow(&plan))
		have, err := k.Read()
		require.NoError(t, err)
		for change := range refused {
			require.True(t, bad[change], "%v: %s", change, refused[change])
			require.NotContains(t, have[change.Set].Members, change.Member)
		}
		for name, set := range have {
			require.GreaterOrEqual(t, len(set.Members), len(want[name].Members), name)
		}
		require.NotEmpty(t, refused)
		t.Log(refused)

		var leaving []ipset.Change
		for change := range bad {
			leaving = append(leaving, change)
		}
		require.NoError(t, k.Delete(leaving))
	})
}
