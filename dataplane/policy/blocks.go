package policy

import (
	"net/netip"

	"go4.org/netipx"
)

// Union returns the addresses of the blocks among the peers, without their exceptions. It takes
// the blocks whose address holds accepts: those of one family. An exception is taken from its own
// block only, so that it never removes an address that another block allows. A block that is no
// prefix, which the parser refuses, has no addresses.
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
