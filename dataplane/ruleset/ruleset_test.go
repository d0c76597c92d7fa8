package ruleset_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

func TestFamily(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	require.True(t, ruleset.IPv4.Holds(v4) && !ruleset.IPv4.Holds(v6))
	require.True(t, ruleset.IPv6.Holds(v6) && !ruleset.IPv6.Holds(v4))
	require.Equal(t, []ruleset.Family{ruleset.IPv4, ruleset.IPv6}, ruleset.Families())
	require.Equal(t, "IPv4 IPv6", ruleset.IPv4.String()+" "+ruleset.IPv6.String())
}

func TestPrefixMatch(t *testing.T) {
	for text, want := range map[string][2]string{
		"10.1.2.3/8":       {"10.0.0.0", "255.0.0.0"},
		"10.1.2.3/32":      {"10.1.2.3", "255.255.255.255"},
		"10.1.2.3/31":      {"10.1.2.2", "255.255.255.254"},
		"0.0.0.0/0":        {"0.0.0.0", "0.0.0.0"},
		"128.0.0.0/1":      {"128.0.0.0", "128.0.0.0"},
		"fd00:1::5/64":     {"fd00:1::", "ffff:ffff:ffff:ffff::"},
		"2001:db8:f::1/45": {"2001:db8:8::", "ffff:ffff:fff8::"},
	} {
		m := ruleset.PrefixMatch(ruleset.Source, netip.MustParsePrefix(text))
		require.Equal(t, want, [2]string{m.Addr.String(), m.Mask.String()}, text)
	}
	m := ruleset.HostMatch(ruleset.Destination, netip.MustParseAddr("fd00::1"))
	require.Equal(t, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", m.Mask.String())
	require.Equal(t, ruleset.Destination, m.Side)
}

func TestSlots(t *testing.T) {
	require.Equal(t, 1, ruleset.PortRange{First: 80, Last: 80}.Slots())
	require.Equal(t, 2, ruleset.PortRange{First: 80, Last: 81}.Slots())
}
