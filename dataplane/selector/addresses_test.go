package selector_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/selector"
)

func showing(name string, terminating bool, addrs ...string) *policy.Pod {
	pod := &policy.Pod{Namespace: "default", Name: name, Subject: true, Terminating: terminating}
	for _, addr := range addrs {
		pod.Addrs = append(pod.Addrs, netip.MustParseAddr(addr))
	}
	return pod
}

func TestAddressesOfOnePod(t *testing.T) {
	a := selector.NewAddresses()
	one, other := showing("one", false, "10.0.0.1", "fd00::1"), showing("other", false, "10.0.0.2")
	require.Equal(t, []*policy.Pod{one}, a.Set(one))
	require.Equal(t, []*policy.Pod{other}, a.Set(other))
	require.Same(t, one, a.Subject(one), "no copy where nothing is shared")
	require.Same(t, one, a.Peer(one))
	require.Empty(t, a.Delete(other.Key()))
	require.Empty(t, a.Delete(other.Key()), "forgotten already")
}

func TestThePodThatStaysIsThePeer(t *testing.T) {
	a := selector.NewAddresses()
	old, newOwner := showing("old", true, "10.0.0.1", "fd00::1"), showing("new-owner", false, "10.0.0.1")
	a.Set(old)
	require.ElementsMatch(t, []*policy.Pod{newOwner, old}, a.Set(newOwner))
	require.Same(t, newOwner, a.Subject(newOwner))
	require.Same(t, newOwner, a.Peer(newOwner))
	require.Same(t, old, a.Subject(old), "its isolation doesn't end by the status of another pod")
	require.Equal(t, showing("old", true, "fd00::1"), a.Peer(old))

	require.Equal(t, []*policy.Pod{old}, a.Delete(newOwner.Key()))
	require.Same(t, old, a.Subject(old), "it is alone again")
}

func TestAddressesThatTwoLivePodsShow(t *testing.T) {
	a := selector.NewAddresses()
	one, two := showing("one", false, "10.0.0.1"), showing("two", false, "10.0.0.1")
	a.Set(one)
	a.Set(two)
	for _, pod := range []*policy.Pod{one, two} {
		require.Same(t, pod, a.Subject(pod), "the policies of both hold")
		require.Empty(t, a.Peer(pod).Addrs, "no peer")
	}

	moved := showing("two", false, "10.0.0.2")
	require.ElementsMatch(t, []*policy.Pod{moved, one}, a.Set(moved), "its old address is the other's alone now")
	require.Same(t, one, a.Peer(one))
	require.Same(t, moved, a.Peer(moved))
}

// A barred address is no pod's, whichever pods show it, until the bar ends.
func TestAddressesThatAreBarred(t *testing.T) {
	a := selector.NewAddresses()
	own := netip.MustParseAddr("10.0.0.1")
	one := showing("one", false, "10.0.0.1", "fd00::1")
	a.Set(one)
	require.Equal(t, []*policy.Pod{one}, a.Bar(map[netip.Addr]struct{}{own: {}}))
	require.Equal(t, showing("one", false, "fd00::1"), a.Subject(one))
	require.Equal(t, showing("one", false, "fd00::1"), a.Peer(one))
	require.Empty(t, a.Owners(own))
	require.Empty(t, a.Bar(map[netip.Addr]struct{}{own: {}}), "nothing changes")
	require.Equal(t, []*policy.Pod{one}, a.Bar(nil))
	require.Same(t, one, a.Subject(one))
}

// The ranges of the nodes decide which of several pods is the peer, once they are known.
func TestAddressesOfPodsOfSeveralNodes(t *testing.T) {
	a := selector.NewAddresses()
	on := func(node, name string) *policy.Pod {
		pod := showing(name, false, "10.0.1.7")
		pod.Node = node
		return pod
	}
	home, liar := on("one", "home"), on("two", "liar")
	a.Set(home)
	require.Empty(t, a.Contested())
	require.Empty(t, a.SetRanges("two", nil), "no pod depends on it")
	a.Set(liar)
	require.Equal(t, map[string]struct{}{"one": {}, "two": {}}, a.Contested())
	require.Empty(t, a.Peer(home).Addrs, "not known yet")
	require.ElementsMatch(t, []*policy.Pod{home, liar}, a.SetRanges("one", []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}))
	require.Empty(t, a.SetRanges("one", []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}), "nothing changes")
	require.Same(t, home, a.Peer(home))
	require.Empty(t, a.Peer(liar).Addrs)
	require.Same(t, liar, a.Subject(liar))

	a.Delete(liar.Key())
	require.Empty(t, a.Contested())
	a.ForgetRanges("one")
	require.Same(t, home, a.Peer(home), "it is alone")
	a.Set(on("one", "twin"))
	require.Empty(t, a.Contested(), "of one node: ranges can't tell")
}

// A node's address, as its hostNetwork pods show it, is no peer's, unless it is of the ranges
// of the pod's node. The policies of the pod hold there.
func TestAddressesOfNodes(t *testing.T) {
	a := selector.NewAddresses()
	addr := netip.MustParseAddr("10.0.1.7")
	host := func(name string) *policy.Pod {
		return &policy.Pod{Namespace: "default", Name: name, Node: "two", NodeAddrs: []netip.Addr{addr}}
	}
	proxy, agent := host("proxy"), host("agent")
	pod := showing("pod", false, "10.0.1.7", "fd00::7")
	pod.Node = "one"

	a.Set(pod)
	require.Same(t, pod, a.Peer(pod))
	require.Empty(t, a.NodeOf(addr, pod))
	require.Equal(t, []*policy.Pod{proxy, pod}, a.Set(proxy))
	require.Equal(t, []*policy.Pod{agent, pod}, a.Set(agent))
	require.Equal(t, []netip.Addr{netip.MustParseAddr("fd00::7")}, a.Peer(pod).Addrs)
	require.Equal(t, "two", a.NodeOf(addr, pod))
	require.Same(t, pod, a.Subject(pod), "a status doesn't end isolation")
	require.Equal(t, []*policy.Pod{pod}, a.Owners(addr).All)
	require.Equal(t, []*policy.Pod{pod}, a.Showing(addr))

	require.Equal(t, map[string]struct{}{"one": {}, "two": {}}, a.Contested())
	require.Empty(t, a.SetRanges("three", nil))
	require.Equal(t, []*policy.Pod{pod}, a.SetRanges("one", []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}))
	require.Same(t, pod, a.Peer(pod), "the address is of its node's ranges")
	require.Empty(t, a.NodeOf(addr, pod))
	require.Equal(t, []*policy.Pod{pod}, a.SetRanges("one", nil))

	require.Equal(t, []*policy.Pod{pod}, a.Delete(proxy.Key()))
	require.NotSame(t, pod, a.Peer(pod))
	require.Equal(t, []*policy.Pod{pod}, a.Delete(agent.Key()))
	require.Same(t, pod, a.Peer(pod), "no other pod shows it")
	require.Empty(t, a.Contested())
}

// Whatever comes and goes, the peers are those of policy.OwnersOf, and each pod whose
// addresses change is named.
func TestAddressesAgreeWithOwnersOf(t *testing.T) {
	for seed := range uint64(200) {
		dice := rand.New(rand.NewPCG(seed, 1))
		a, ranges, seen := selector.NewAddresses(), policy.Ranges{}, map[string][]netip.Addr{}
		pods := map[string]*policy.Pod{}
		for step := range 60 {
			affected := randomStep(dice, a, pods, ranges)
			for name, pod := range pods {
				var want []netip.Addr
				for _, addr := range pod.Addrs {
					if policy.OwnersOf(addr, slices.Collect(maps.Values(pods)), ranges).Peer == pod {
						want = append(want, addr)
					}
				}
				got := a.Peer(pod).Addrs
				require.ElementsMatch(t, want, got, "seed %d, step %d, %s", seed, step, name)
				if !slices.Equal(seen[name], got) {
					require.Contains(t, affected, pod, "seed %d, step %d", seed, step)
					seen[name] = got
				}
			}
		}
	}
}

// randomStep changes a pod or the ranges of a node, and returns which pods it may affect.
func randomStep(dice *rand.Rand, a *selector.Addresses, pods map[string]*policy.Pod, ranges policy.Ranges) []*policy.Pod {
	name, node := fmt.Sprint("pod-", dice.IntN(6)), fmt.Sprint("node-", dice.IntN(3))
	pod := showing(name, dice.IntN(4) == 0, fmt.Sprintf("10.0.%d.%d", dice.IntN(2), dice.IntN(2)))
	pod.Node = node
	if dice.IntN(3) == 0 {
		pod.Addrs, pod.NodeAddrs = nil, pod.Addrs
	}
	switch dice.IntN(6) {
	case 0:
		delete(pods, name)
		return a.Delete(pod.Key())
	case 1:
		ranges[node] = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", dice.IntN(2)))}
		return a.SetRanges(node, ranges[node])
	}
	pods[name] = pod
	return a.Set(pod)
}
