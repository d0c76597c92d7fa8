package policy

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUnion(t *testing.T) {
	block := func(cidr string, except ...string) Peer {
		b := &Block{CIDR: netip.MustParsePrefix(cidr)}
		for _, e := range except {
			b.Except = append(b.Except, netip.MustParsePrefix(e))
		}
		return Peer{Block: b}
	}
	for name, row := range map[string]struct {
		peers []Peer
		want  string
	}{
		"no block":                           {[]Peer{{}}, "[]"},
		"another family's":                   {[]Peer{block("fd00::/64")}, "[]"},
		"an exception":                       {[]Peer{block("10.0.0.0/30", "10.0.0.1/32")}, "[10.0.0.0/32 10.0.0.2/31]"},
		"another block allows the exception": {[]Peer{block("10.0.0.0/30", "10.0.0.1/32"), block("10.0.0.1/32")}, "[10.0.0.0/30]"},
		"one that is no block":               {[]Peer{block("10.0.0.0/31"), {Block: &Block{}}}, "[10.0.0.0/31]"},
		"nothing is left":                    {[]Peer{block("10.0.0.0/30", "10.0.0.0/8")}, "[]"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, row.want, fmt.Sprint(Union(row.peers, netip.Addr.Is4).Prefixes()))
		})
	}
}

func TestBlockMatches(t *testing.T) {
	b := Block{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("10.2.0.0/16")}}
	for addr, want := range map[string]bool{
		"10.0.0.0": true, "10.255.255.255": true, "10.3.0.1": true,
		"10.1.0.0": false, "10.2.255.255": false, "11.0.0.0": false, "fd00::1": false,
	} {
		require.Equal(t, want, b.mismatch(netip.MustParseAddr(addr)) == peerMatches, addr)
	}
}
