package policy

import (
	"net/netip"

	"go4.org/netipx"
)

// Union returns the addresses that the blocks among the peers leave, of those blocks whose
// address the family holds. An exception is taken from its own block only, so that it never
// takes away what another block allows. A block that is no prefix, which the parser refuses,
// leaves nothing.
func Union(peers []Peer, holds func(netip.Addr) bool) *netipx.IPSet {
	var union netipx.IPSetBuilder
	for _, peer := range peers {
		if peer.Block == nil || !holds(peer.Block.CIDR.Addr()) {
			continue
		}
		var block netipx.IPSetBuilder
		block.AddPrefix(peer.Block.CIDR)
		for _, except := range peer.Block.Except {
			block.RemovePrefix(except)
		}
		if rest, err := block.IPSet(); err == nil {
			union.AddSet(rest)
		}
	}
	set, err := union.IPSet()
	if err != nil {
		return &netipx.IPSet{}
	}
	return set
}
