package selector_test

import (
	"net/netip"
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
	old, heir := showing("old", true, "10.0.0.1", "fd00::1"), showing("heir", false, "10.0.0.1")
	a.Set(old)
	require.ElementsMatch(t, []*policy.Pod{heir, old}, a.Set(heir))
	require.Same(t, heir, a.Subject(heir))
	require.Same(t, heir, a.Peer(heir))
	require.Same(t, old, a.Subject(old), "its isolation doesn't end by the status of another pod")
	require.Equal(t, showing("old", true, "fd00::1"), a.Peer(old))

	require.Equal(t, []*policy.Pod{old}, a.Delete(heir.Key()))
	require.Same(t, old, a.Subject(old), "it is alone again")
}

func TestAddressesThatTwoLivePodsShow(t *testing.T) {
	a := selector.NewAddresses()
	one, two := showing("one", false, "10.0.0.1"), showing("two", false, "10.0.0.1")
	a.Set(one)
	a.Set(two)
	for _, pod := range []*policy.Pod{one, two} {
		require.Same(t, pod, a.Subject(pod), "the policies of both hold")
		require.Empty(t, a.Peer(pod).Addrs, "nobody's peer")
	}

	moved := showing("two", false, "10.0.0.2")
	require.ElementsMatch(t, []*policy.Pod{moved, one}, a.Set(moved), "its old address is the other's alone now")
	require.Same(t, one, a.Peer(one))
	require.Same(t, moved, a.Peer(moved))
}

// A barred address is no pod's until it is barred no more, whichever pods show it.
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
	require.Empty(t, a.SetRanges("two", nil), "nobody depends on it")
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
