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
	require.EqualValues(t, uint64(18446744073709551615), parsePackets(saved, "MOAT-GUARD"))
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
		require.Zero(t, parsePackets(saved, chain), chain)
	}
}
