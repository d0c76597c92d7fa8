package isolation

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
)

func TestInternet(t *testing.T) {
	for name, test := range map[string]struct {
		cluster []string
		in, out []string
	}{
		"no cluster ranges": {
			in:  []string{"1.1.1.1", "8.8.8.8", "100.63.255.255", "172.32.0.1", "223.255.255.255", "2606:4700::1111", "2003::1"},
			out: []string{"10.0.0.1", "172.31.9.9", "192.168.1.1", "100.64.0.1", "127.0.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "0.0.0.1", "::1", "fd00::1", "fe80::1", "ff02::1", "2001:db8::1", "2002:a00:1::1", "64:ff9b::a00:1", "::ffff:10.0.0.1"},
		},
		"public cluster ranges": {
			cluster: []string{"1.1.0.0/16", "10.244.0.0/16", "2606:4700::/32", "fd00::/8"},
			in:      []string{"1.2.0.1", "2606:4701::1"},
			out:     []string{"1.1.1.1", "10.244.0.1", "2606:4700::1111", "fd00::1"},
		},
		"half of everything":  {cluster: []string{"0.0.0.0/1"}, in: []string{"200.1.1.1"}, out: []string{"1.1.1.1", "8.8.8.8"}},
		"more than a block":   {cluster: []string{"2000::/2"}, in: []string{"1.1.1.1"}, out: []string{"2606:4700::1111"}},
		"unreadable, so none": {cluster: []string{"nonsense"}, out: []string{"1.1.1.1", "2606:4700::1111"}},
	} {
		t.Run(name, func(t *testing.T) {
			peers := internet(test.cluster)
			for _, address := range test.in {
				require.True(t, allows(peers, address), address)
			}
			for _, address := range test.out {
				require.False(t, allows(peers, address), address)
			}
		})
	}
}

func allows(peers []networkingv1.NetworkPolicyPeer, text string) bool {
	address := netip.MustParseAddr(text)
	for _, peer := range peers {
		allowed := netip.MustParsePrefix(peer.IPBlock.CIDR).Contains(address)
		for _, except := range peer.IPBlock.Except {
			allowed = allowed && !netip.MustParsePrefix(except).Contains(address)
		}
		if allowed {
			return true
		}
	}
	return false
}
