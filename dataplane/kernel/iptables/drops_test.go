package iptables

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseDrops(t *testing.T) {
	const saved = `*mangle
:MOAT-GUARD - [0:0]
[3:180] -A MOAT-GUARD -i lo -j RETURN
[18446744073709551615:420] -A MOAT-GUARD -j DROP
[9:540] -A MOAT-GUARD2 -j DROP
[x:540] -A MOAT-BROKEN -j DROP
-A MOAT-BARE -j DROP
COMMIT
`
	require.EqualValues(t, uint64(18446744073709551615), Counters{saved}.Packets("MOAT-GUARD"))
	require.Equal(t, `*mangle
:MOAT-GUARD - [0:0]
-A MOAT-GUARD -i lo -j RETURN
-A MOAT-GUARD -j DROP
-A MOAT-GUARD2 -j DROP
-A MOAT-BROKEN -j DROP
-A MOAT-BARE -j DROP
COMMIT
`, withoutCounters(saved))
	for _, chain := range []string{"MOAT-BROKEN", "MOAT-BARE", "MOAT-NONE"} {
		require.Zero(t, Counters{saved}.Packets(chain), chain)
	}
}

func TestPacketsByInterface(t *testing.T) {
	const saved = `*mangle
:MOAT-FORGED - [0:0]
[1:40] -A MOAT-ORIGIN -s 10.0.0.1/32 -i veth0 -g MOAT-FORGED
[2:80] -A MOAT-ORIGIN -m physdev --physdev-in veth1 -g MOAT-FORGED
[3:120] -A MOAT-ORIGIN-P7 -m physdev --physdev-in veth2 -g MOAT-FORGED
[4:160] -A MOAT-ORIGIN -i cali1 -g MOAT-FORGED
[5:200] -A MOAT-ORIGIN -i cali+ -g MOAT-ORIGIN-I2
[6:240] -A MOAT-ORIGIN -i cali3 -j RETURN
[7:280] -A MOAT-FORGED -j RETURN
COMMIT
`
	require.Equal(t, map[string]uint64{"veth1": 2, "veth2": 3, "cali1": 4}, Counters{saved}.ByInterface("MOAT-FORGED"))
	require.EqualValues(t, 7, Counters{saved}.Packets("MOAT-FORGED"))
	require.Empty(t, Counters{}.ByInterface("MOAT-FORGED"))
}
