package flows

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/conntrack"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/policy"
)

// A link may forbid what pods send or receive under link-local addresses, but nothing
// that the node sends, nor what it gets by another link.
func TestConnectionsAreJudgedByLinks(t *testing.T) {
	const (
		pod, other           = "fe80::a", "fe80::b"
		known                = "fd00:10:244:1::10"
		self, uplink, global = "fe80::1", "fe80::99", "fd00:10:244:1::1"
	)
	addresses := func(texts ...string) conntrack.Addresses {
		set := conntrack.Addresses{}
		for _, text := range texts {
			set[netip.MustParseAddr(text)] = struct{}{}
		}
		return set
	}
	own := nodeAddresses{all: addresses(self, uplink, global)}
	for _, row := range []struct {
		client, server string
		sent, received bool
	}{
		{pod, other, true, true},
		{pod, known, true, false},
		{known, pod, false, true},
		{known, known, false, false},
		{pod, self, true, false},
		{pod, global, true, false},
		{pod, uplink, false, false},
		{self, pod, false, false},
		{uplink, pod, false, false},
		{global, pod, false, false},
	} {
		for _, links := range []compile.Links{{}, {policy.Egress: {"cni0"}}, {policy.Ingress: {"cni0"}}, {{"cni0"}, {"cni0"}}} {
			own.closed = nil
			if len(links[policy.Egress]) > 0 {
				own.closed = addresses(self, global)
			}
			m := node.New("node-1")
			l := newLookup(m, &Enforced{Links: links}, own)
			class := conntrack.Class{Client: netip.MustParseAddr(row.client), Server: netip.MustParseAddr(row.server), Protocol: policy.UDP, Port: 53, Answer: 53}
			want := row.sent && len(links[policy.Egress]) > 0 || row.received && len(links[policy.Ingress]) > 0
			m.Peers(func(p node.Peers) {
				l.peers = p
				require.Equal(t, causes{compile.ByLink: want}, l.forbids(&class), "%+v %v", row, links)
			})
		}
	}
}
