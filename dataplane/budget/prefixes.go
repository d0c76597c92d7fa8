package budget

import (
	"encoding/binary"
	"math/bits"
	"net/netip"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// prefixes returns how many disjoint prefixes the blocks among the peers leave in a
// family, without making them.
func prefixes(family ruleset.Family, peers []policy.Peer) int {
	n := 0
	for _, r := range policy.Union(peers, family.Holds).Ranges() {
		n += prefixesOfRange(r.From(), r.To())
	}
	return n
}

// prefixesOfRange returns how many prefixes it takes to write a range of addresses.
//
// The two ends share their first bits, then differ in one. The addresses below that
// bit's border are those from "first" to the end of a block of a power of two, and the
// sizes of the prefixes that cover them are the bits of their number. The addresses above
// it are the same the other way round.
func prefixesOfRange(first, last netip.Addr) int {
	a, b := number(first), number(last)
	length := a.xor(b).length()
	if length == 0 {
		return 1
	}
	low := mask(length - 1) // below the bit that differs
	below := low.minus(a.and(low)).plusOne()
	above := b.and(low).plusOne()
	if a.and(mask(length)) == (uint128{}) && b.and(mask(length)) == mask(length) {
		return 1 // a block of its own
	}
	return below.ones() + above.ones()
}

// uint128 is an address as a number.
type uint128 struct{ high, low uint64 }

func number(addr netip.Addr) uint128 {
	if addr.Is4() {
		four := addr.As4()
		return uint128{low: uint64(binary.BigEndian.Uint32(four[:]))}
	}
	sixteen := addr.As16()
	return uint128{binary.BigEndian.Uint64(sixteen[:8]), binary.BigEndian.Uint64(sixteen[8:])}
}

// mask has the given number of lowest bits.
func mask(length int) uint128 {
	switch {
	case length >= 128:
		return uint128{^uint64(0), ^uint64(0)}
	case length > 64:
		return uint128{1<<(length-64) - 1, ^uint64(0)}
	case length == 64:
		return uint128{low: ^uint64(0)}
	}
	return uint128{low: 1<<length - 1}
}

func (n uint128) xor(other uint128) uint128 {
	return uint128{n.high ^ other.high, n.low ^ other.low}
}

func (n uint128) and(other uint128) uint128 {
	return uint128{n.high & other.high, n.low & other.low}
}

func (n uint128) minus(other uint128) uint128 {
	low, borrow := bits.Sub64(n.low, other.low, 0)
	high, _ := bits.Sub64(n.high, other.high, borrow)
	return uint128{high, low}
}

func (n uint128) plusOne() uint128 {
	low, carry := bits.Add64(n.low, 1, 0)
	return uint128{n.high + carry, low}
}

// length is the place of the highest bit, counted from 1; 0 for the number 0.
func (n uint128) length() int {
	if n.high != 0 {
		return 64 + bits.Len64(n.high)
	}
	return bits.Len64(n.low)
}

func (n uint128) ones() int { return bits.OnesCount64(n.high) + bits.OnesCount64(n.low) }
