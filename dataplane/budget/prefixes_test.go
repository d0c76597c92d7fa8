package budget

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"go4.org/netipx"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// The number of prefixes is exactly that of the library that compile uses.
func TestPrefixesAreCountedExactly(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 1))
	for range 5000 {
		first, last := randomAddr(random), randomAddr(random)
		if last.Less(first) {
			first, last = last, first
		}
		r := netipx.IPRangeFrom(first, last)
		if !r.IsValid() { // of two families
			continue
		}
		require.Equal(t, len(r.Prefixes()), prefixesOfRange(first, last), r)
	}
	for _, text := range []string{"0.0.0.0-255.255.255.255", "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "0.0.0.1-255.255.255.254",
		"::1-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "::-0:0:0:1::", "0:0:0:1::-0:0:0:1:ffff:ffff:ffff:ffff", "10.0.0.7-10.0.0.7", "10.0.0.0-10.0.0.1"} {
		r := netipx.MustParseIPRange(text)
		require.Equal(t, len(r.Prefixes()), prefixesOfRange(r.From(), r.To()), text)
	}
}

// randomAddr is near few others, so that ranges have all lengths.
func randomAddr(random *rand.Rand) netip.Addr {
	if random.IntN(2) == 0 {
		n := random.Uint32() >> random.IntN(32)
		return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
	}
	var bytes [16]byte
	for i := random.IntN(16); i < 16; i++ {
		bytes[i] = byte(random.Uint32())
	}
	return netip.AddrFrom16(bytes)
}

func TestPrefixesOfBlocks(t *testing.T) {
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 2))
		var peers []policy.Peer
		var union netipx.IPSetBuilder
		for range random.IntN(6) {
			block := &policy.Block{CIDR: randomPrefix(random)}
			var rest netipx.IPSetBuilder
			rest.AddPrefix(block.CIDR)
			for range random.IntN(6) {
				except := randomPrefix(random)
				block.Except = append(block.Except, except)
				rest.RemovePrefix(except)
			}
			set, err := rest.IPSet()
			require.NoError(t, err)
			union.AddSet(set)
			peers = append(peers, policy.Peer{Block: block})
		}
		set, err := union.IPSet()
		require.NoError(t, err)
		counted := 0
		for _, family := range ruleset.Families() {
			counted += prefixes(family, peers)
		}
		require.Equal(t, len(set.Prefixes()), counted, "seed %d", seed)
	}
}

func randomPrefix(random *rand.Rand) netip.Prefix {
	addr := randomAddr(random)
	return netip.PrefixFrom(addr, random.IntN(addr.BitLen()+1)).Masked()
}
