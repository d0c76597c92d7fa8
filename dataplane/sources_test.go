package dataplane

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

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
