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
