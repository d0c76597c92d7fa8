package ipset_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/ipset"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// inKernel runs a test with the sets of a network namespace of its own.
func inKernel(t *testing.T, test func(k *ipset.Kernel)) {
	t.Helper()
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	require.NoError(t, node.Do(func() error {
		k, err := ipset.Open("moat-")
		if err != nil {
			return err
		}
		defer k.Close()
		test(k)
		return nil
	}))
}

// bring makes the kernel hold the state and returns what it then holds.
func bring(t *testing.T, k *ipset.Kernel, want ipset.State) ipset.State {
	t.Helper()
	have, err := k.Read()
	require.NoError(t, err)
	plan := ipset.Diff(have, want)
	require.NoError(t, k.Grow(&plan))
	busy, err := k.Shrink(&plan)
	require.NoError(t, err)
	require.Empty(t, busy)
	have, err = k.Read()
	require.NoError(t, err)
	return have
}

// ofSize returns a set with distinct members.
func ofSize(name string, kind ruleset.SetType, family ruleset.Family, size int) ruleset.Set {
	s := ruleset.Set{Name: name, Type: kind, Family: family, Members: ruleset.Members{}}
	for i := range size {
		s.Members[numbered(kind, family, i)] = struct{}{}
	}
	return s
}

func numbered(kind ruleset.SetType, family ruleset.Family, i int) ruleset.Member {
	addr := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
	if family == ruleset.IPv6 {
		addr = netip.AddrFrom16([16]byte{0: 0xfd, 13: byte(i >> 16), 14: byte(i >> 8), 15: byte(i)})
	}
	m := ruleset.Address(addr)
	switch kind {
	case ruleset.HashIPPort:
		m.Protocol, m.Port = []uint8{6, 17, 132}[i%3], uint16(1+i%65535)
	case ruleset.HashIPPortIP:
		m.Protocol, m.Port, m.Server = []uint8{6, 1, 47}[i%3], uint16([]int{1 + i%65535, 8 << 8, 0}[i%3]), addr.Next()
		if family == ruleset.IPv6 && m.Protocol == 1 {
			m.Protocol = 58
		}
	case ruleset.HashNet:
		m.Prefix = netip.PrefixFrom(addr, addr.BitLen()-i%2).Masked()
	}
	return m
}

func everyKind(size int) ipset.State {
	s := ipset.State{}
	for _, family := range ruleset.Families() {
		for i, kind := range []ruleset.SetType{ruleset.HashIP, ruleset.HashIPPort, ruleset.HashNet, ruleset.HashIPPortIP} {
			name := fmt.Sprintf("moat-%d-test-%d", family, i)
			s[name] = ofSize(name, kind, family, size)
		}
	}
	return s
}

func TestTheKernelHoldsWhatIsWanted(t *testing.T) {
	inKernel(t, func(k *ipset.Kernel) {
		for _, size := range []int{3, 2000, 1, 0, 5} {
			want := everyKind(size)
			require.Equal(t, want, bring(t, k, want))
		}
		require.Empty(t, bring(t, k, nil))
	})
}

// A set that is full is made larger, whether its elements come at once or one by
// one, and nothing of the larger one's making is left.
func TestASetGrows(t *testing.T) {
	inKernel(t, func(k *ipset.Kernel) {
		k.Capacity = 4
		for _, size := range []int{4, 5, 100, 3000, 6000} {
			want := everyKind(size)
			require.Equal(t, want, bring(t, k, want), "%d elements", size)
		}
		one := ofSize("moat-4-test-0", ruleset.HashIP, ruleset.IPv4, 0)
		for i := range 9000 {
			one.Members[numbered(one.Type, one.Family, i)] = struct{}{}
			require.NoError(t, k.Add([]ipset.Change{{Set: one.Name, Type: one.Type, Member: numbered(one.Type, one.Family, i)}}))
		}
		have, err := k.Read()
		require.NoError(t, err)
		require.Equal(t, one, have[one.Name])
		require.Len(t, have, 8)
	})
}

// A set that can't grow is no other set's problem.
func TestTheOthersAreFilledAllTheSame(t *testing.T) {
	inKernel(t, func(k *ipset.Kernel) {
		want := state(ofSize("moat-a", ruleset.HashIP, ruleset.IPv4, 3), ofSize("moat-c", ruleset.HashIP, ruleset.IPv4, 3))
		bring(t, k, want)
		wrong := member("fd00::1")
		err := k.Add([]ipset.Change{
			change("moat-a", ruleset.HashIP, "10.9.0.1"),
			{Set: "moat-b", Type: ruleset.HashIP, Member: member("10.9.0.1")},
			{Set: "moat-c", Type: ruleset.HashIP, Member: wrong},
			change("moat-a", ruleset.HashIP, "10.9.0.2"),
		})
		require.ErrorContains(t, err, "adding 10.9.0.1/32 to ipset moat-b: no such file")
		require.ErrorContains(t, err, "adding fd00::1/128 to ipset moat-c")
		have, err := k.Read()
		require.NoError(t, err)
		require.Len(t, have["moat-a"].Members, 5)
	})
}

// A set that can't be made keeps none of those that there are from their elements.
func TestASetThatCantBeMade(t *testing.T) {
	inKernel(t, func(k *ipset.Kernel) {
		bring(t, k, state(ofSize("moat-a", ruleset.HashIP, ruleset.IPv4, 1), ofSize("moat-z", ruleset.HashIP, ruleset.IPv4, 1)))
		want := state(ofSize("moat-a", ruleset.HashIP, ruleset.IPv4, 5), ofSize("moat-b", "hash:unknown", ruleset.IPv4, 5), ofSize("moat-z", ruleset.HashIP, ruleset.IPv4, 5))
		have, err := k.Read()
		require.NoError(t, err)
		plan := ipset.Diff(have, want)
		require.ErrorContains(t, k.Grow(&plan), "creating ipset moat-b of type hash:unknown: invalid type")
		have, err = k.Read()
		require.NoError(t, err)
		delete(want, "moat-b")
		require.Equal(t, want, have)
	})
}

// An agent that died while it made a set larger leaves an unwanted set with Moat's prefix, which
// goes. Another program's set with a similar name stays.
func TestAnUnfinishedSetGoes(t *testing.T) {
	inKernel(t, func(k *ipset.Kernel) {
		want := state(ofSize("moat-4-p-0123456789abcdef", ruleset.HashIP, ruleset.IPv4, 3))
		bring(t, k, want)
		for _, name := range []string{"moat-4-p-0123456789abcdef-1a2b", "other-moat-4-p"} {
			require.NoError(t, exec.Command("ipset", "create", name, "hash:ip").Run())
		}
		require.Equal(t, want, bring(t, k, want))
		names, err := exec.Command("ipset", "list", "-n").Output()
		require.NoError(t, err)
		require.Equal(t, []string{"moat-4-p-0123456789abcdef", "other-moat-4-p"}, strings.Fields(string(names)))
	})
}

// The test says how long it takes to fill and read large sets and to change one
// element of them, and what the library would take, with a message for each
// element.
func TestLargeSets(t *testing.T) {
	large := []ruleset.Set{
		ofSize("moat-ip4", ruleset.HashIP, ruleset.IPv4, 100_000),
		ofSize("moat-ip6", ruleset.HashIP, ruleset.IPv6, 100_000),
		ofSize("moat-port4", ruleset.HashIPPort, ruleset.IPv4, 100_000),
		ofSize("moat-port6", ruleset.HashIPPort, ruleset.IPv6, 100_000),
		ofSize("moat-net4", ruleset.HashNet, ruleset.IPv4, 10_000),
		ofSize("moat-net6", ruleset.HashNet, ruleset.IPv6, 10_000),
	}
	for _, s := range large {
		t.Run(s.Name, func(t *testing.T) {
			inKernel(t, func(k *ipset.Kernel) {
				plan := ipset.Diff(nil, state(s))
				fill := took(func() { require.NoError(t, k.Grow(&plan)) })
				last := plan.Add[len(plan.Add)-1:]
				remove := took(func() { require.NoError(t, k.Delete(last)) })
				add := took(func() { require.NoError(t, k.Add(last)) })
				var have ipset.State
				read := took(func() {
					var err error
					have, err = k.Read()
					require.NoError(t, err)
				})
				require.Equal(t, s.Members, have[s.Name].Members)

				apart := plan.Add[:10_000]
				require.NoError(t, k.Delete(plan.Add))
				together := took(func() { require.NoError(t, k.Add(apart)) })
				require.NoError(t, k.Delete(apart))
				library, err := netlink.NewHandle(unix.NETLINK_NETFILTER)
				require.NoError(t, err)
				defer library.Close()
				single := took(func() {
					for _, c := range apart {
						require.NoError(t, library.IpsetAdd(c.Set, entryOf(c)))
					}
				})
				readSome := took(func() {
					_, err := k.Read()
					require.NoError(t, err)
				})
				readLibrary := took(func() {
					_, err := library.IpsetListAll()
					require.NoError(t, err)
				})
				t.Logf("%d elements: filled in %v, read in %v; one more in %v, one less in %v; 10,000 with the library: %.1f times as long to add, %.0f times to read",
					len(s.Members), fill, read, add, remove, float64(single)/float64(together), float64(readLibrary)/float64(readSome))
			})
		})
	}
}

func took(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

func entryOf(c ipset.Change) *netlink.IPSetEntry {
	entry := &netlink.IPSetEntry{IP: c.Member.Prefix.Addr().AsSlice(), Replace: true}
	switch c.Type {
	case ruleset.HashNet:
		entry.CIDR = uint8(c.Member.Prefix.Bits())
	case ruleset.HashIPPort:
		entry.Protocol, entry.Port = &c.Member.Protocol, &c.Member.Port
	}
	return entry
}

// The kernel counts all elements of a set, also those that another program added. Sets of other
// programs don't appear.
func TestSizes(t *testing.T) {
	inKernel(t, func(k *ipset.Kernel) {
		sizes, err := k.Sizes()
		require.NoError(t, err)
		require.Empty(t, sizes)

		want := ipset.State{}
		for i := range 300 { // more than one message of the answer
			name := fmt.Sprintf("moat-%d", i)
			want[name] = ofSize(name, ruleset.HashIP, ruleset.Family(4+2*(i%2)), i%3*100)
		}
		bring(t, k, want)
		other := exec.Command("ipset", "create", "other", "hash:ip")
		require.NoError(t, other.Run())
		sizes, err = k.Sizes()
		require.NoError(t, err)
		require.Len(t, sizes, len(want))
		for name, set := range want {
			require.Equal(t, len(set.Members), sizes[name], name)
		}

		require.NoError(t, exec.Command("ipset", "flush", "moat-1").Run())
		require.NoError(t, exec.Command("ipset", "add", "moat-3", "fd00::ffff:1").Run())
		sizes, err = k.Sizes()
		require.NoError(t, err)
		require.Equal(t, []int{0, 1}, []int{sizes["moat-1"], sizes["moat-3"]})
	})
}

// A set that holds one pod takes less than 2 KB of the kernel's memory: a node may need
// thousands of sets. What "ipset list" calls the size in memory leaves out the hash
// table (mtype_memsize in net/netfilter/ipset/ip_set_hash_gen.h): a pointer a bucket.
func TestASmallSetIsSmall(t *testing.T) {
	const pointer = 8
	listings := map[string]string{}
	inKernel(t, func(k *ipset.Kernel) {
		want := ipset.State{}
		for _, family := range ruleset.Families() {
			for _, kind := range []ruleset.SetType{ruleset.HashIP, ruleset.HashIPPort, ruleset.HashNet, ruleset.HashIPPortIP} {
				name := fmt.Sprintf("moat-%d-%s", family, kind)
				want[name] = ofSize(name, kind, family, 1)
			}
		}
		require.Equal(t, want, bring(t, k, want))
		for name := range want {
			listed, err := exec.Command("ipset", "list", "-t", name).CombinedOutput()
			require.NoError(t, err, string(listed))
			listings[name] = string(listed)
		}
	})
	require.Len(t, listings, 8)
	for _, listed := range listings {
		size := listedNumber(t, listed, "Size in memory: ") + pointer*listedNumber(t, listed, " hashsize ")
		require.Less(t, size, 2<<10, listed)
	}
}

// listedNumber returns the number that follows a text in a listing.
func listedNumber(t *testing.T, listed, text string) int {
	t.Helper()
	_, after, found := strings.Cut(listed, text)
	require.True(t, found, listed)
	var number int
	_, err := fmt.Sscan(after, &number)
	require.NoError(t, err)
	return number
}
