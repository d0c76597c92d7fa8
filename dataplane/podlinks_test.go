package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// linkNamed is an interface with an index, a master (0: none) and the number of the namespace
// that it leads to (negative: none).
func linkNamed(name string, index, master, namespace int) netlink.LinkAttrs {
	return netlink.LinkAttrs{Name: name, Index: index, MasterIndex: master, NetNsID: namespace}
}

// A pod's packets are told by its link where that is the only one, and a port of a bridge that
// leads to pods alone or of nothing.
func TestLinksByWhichPodsAreTold(t *testing.T) {
	links := newNodeLinks([]netlink.Link{
		&netlink.Bridge{LinkAttrs: linkNamed("cni0", 1, 0, -1)},
		&netlink.Bridge{LinkAttrs: linkNamed("br-uplink", 2, 0, -1)},
		&netlink.Bridge{LinkAttrs: linkNamed("br 1", 3, 0, -1)},
		&netlink.Vrf{LinkAttrs: linkNamed("vrf0", 4, 0, -1)},
		&netlink.Veth{LinkAttrs: linkNamed("routed", 10, 0, 0)},
		&netlink.Veth{LinkAttrs: linkNamed("bridged", 11, 1, 1)},
		&netlink.Veth{LinkAttrs: linkNamed("on-uplink", 12, 2, 2)},
		&netlink.Veth{LinkAttrs: linkNamed("on-odd-name", 13, 3, 3)},
		&netlink.Veth{LinkAttrs: linkNamed("on-vrf", 14, 4, 4)},
		&netlink.Veth{LinkAttrs: linkNamed("veth+", 15, 0, 5)},
		&netlink.Veth{LinkAttrs: linkNamed("first", 16, 0, 6)},
		&netlink.Veth{LinkAttrs: linkNamed("second", 17, 0, 6)},
		&netlink.Veth{LinkAttrs: linkNamed("lost-master", 18, 99, 7)},
	}, []int{2})
	want := map[int]compile.PodLink{0: {Name: "routed"}, 1: {Name: "bridged", Bridge: "cni0"}}
	for namespace := -1; namespace < 9; namespace++ {
		link, usable := links.podLink(links.leadingTo(namespace))
		expected, is := want[namespace]
		require.Equal(t, is, usable, "namespace %d: %s", namespace, link.Name)
		require.Equal(t, expected, link)
	}
}

// The runtime's file counts only in the folder of network namespaces: any other one is the
// agent's own.
func TestNetworkNamespacesAreInOneFolder(t *testing.T) {
	for _, path := range []string{"", "/proc/1/ns/net", "/run/netns/../../proc/1/ns/net", "/run/netns", "/var/run/netns/a/b"} {
		_, err := openNetNS(path)
		require.ErrorIs(t, err, errElsewhere, path)
	}
	for _, path := range []string{"/var/run/netns/moat-no-such-namespace", "/run/netns/moat-no-such-namespace"} {
		_, err := openNetNS(path)
		require.ErrorContains(t, err, "open /run/netns/moat-no-such-namespace", path)
	}
}

// A link contradicts what is written where it has another pod, or its pod other addresses.
func TestContradictions(t *testing.T) {
	addrs := []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	written := map[string]compile.PodLink{"a": {Name: "veth1", Addrs: addrs}, "b": {Name: "veth2"}}
	for _, c := range []struct {
		want        map[string]compile.PodLink
		contradicts bool
	}{
		{written, false},
		{map[string]compile.PodLink{"a": {Name: "veth1", Addrs: addrs}}, false},
		{map[string]compile.PodLink{"c": {Name: "veth3"}}, false},
		{map[string]compile.PodLink{"c": {Name: "veth1", Addrs: addrs}}, true},
		{map[string]compile.PodLink{"a": {Name: "veth1"}}, true},
		{map[string]compile.PodLink{"a": {Name: "veth1", Addrs: addrs, Exempt: true}}, true},
	} {
		require.Equal(t, c.contradicts, contradicts(c.want, written), "%v", c.want)
	}
}

// That a pod is judged, or no more, is no reason to look for connections that policies forbid:
// the table of connections is large. That the first one is judged moves the hooks.
func TestSourcesChangeNoPolicies(t *testing.T) {
	table := func(links ...compile.PodLink) iptables.Table {
		out := compile.Compile(compile.Host{}, ruleset.IPv4, nil, compile.Links{}, compile.Guard{})
		out.JudgeSources(compile.Sources{Links: links}, nil)
		return iptables.Desired(&out.Ruleset)
	}
	var links []compile.PodLink
	for i := range 40 {
		addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
		links = append(links, compile.PodLink{Name: fmt.Sprintf("veth%d", i), Bridge: "cni0", Addrs: []netip.Addr{addr}})
	}
	few, many := table(links[:2]...), table(links...)
	for _, change := range []iptables.Change{iptables.Diff(few, many), iptables.Diff(many, few)} {
		require.False(t, change.Empty())
		require.False(t, changesPolicies(&change), change)
	}
	first := iptables.Diff(table(), few)
	require.True(t, changesPolicies(&first))
}
