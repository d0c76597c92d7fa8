package isolation

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
)

// publicRanges are the addresses of the Internet with what is none of it inside:
// the ranges of IANA's special-purpose registries (RFC 6890). Of IPv6, only
// 2000::/3 is given out. Ranges that carry an IPv4 address within are left out,
// since it may be a private one.
var publicRanges = []networkingv1.IPBlock{
	{CIDR: "0.0.0.0/0", Except: []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	}},
	{CIDR: "2000::/3", Except: []string{"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"}},
}

// internet returns the public ranges without the cluster's own.
func internet(clusterCIDRs []string) []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for _, public := range publicRanges {
		if block, some := without(public, clusterCIDRs); some {
			peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &block})
		}
	}
	return peers
}

// without takes ranges out of a block; some is false where nothing is left, and
// where a range can't be read. NetworkPolicy wants each exception inside of the
// block and smaller.
func without(block networkingv1.IPBlock, ranges []string) (result networkingv1.IPBlock, some bool) {
	whole := netip.MustParsePrefix(block.CIDR)
	result = networkingv1.IPBlock{CIDR: block.CIDR, Except: slices.Clone(block.Except)}
	for _, text := range slices.Sorted(slices.Values(ranges)) {
		out, err := netip.ParsePrefix(text)
		switch {
		case err != nil:
			return result, false
		case !out.Overlaps(whole) || within(out, result.Except):
			continue
		case out.Bits() <= whole.Bits():
			return result, false
		}
		result.Except = append(result.Except, out.Masked().String())
	}
	return result, true
}

// within says whether one of ranges holds all of prefix.
func within(prefix netip.Prefix, ranges []string) bool {
	for _, text := range ranges {
		if other := netip.MustParsePrefix(text); other.Bits() <= prefix.Bits() && other.Overlaps(prefix) {
			return true
		}
	}
	return false
}
