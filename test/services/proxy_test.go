package services

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/test/cluster"
)

// setup is what writes a node's rules.
type setup struct {
	mode    cluster.ProxyMode
	backend iptables.Backend // of Moat, Flannel and, in its iptables mode, kube-proxy
}

var setups = map[string]setup{
	"kube-proxy with iptables-nft":    {cluster.ProxyIPTables, iptables.NFT},
	"kube-proxy with iptables-legacy": {cluster.ProxyIPTables, iptables.Legacy},
	"kube-proxy with nftables":        {cluster.ProxyNFTables, iptables.NFT},
}

// program returns the setup's program of a family.
func (s setup) program(family string) string {
	return cluster.Program(s.backend, family)
}

// startProxy starts kube-proxy on a node. The node masqueradeAll has the setting of
// that name.
func (s *scene) startProxy(n *cluster.Node) *cluster.Process {
	return n.StartProxy(s.test, cluster.Proxy{
		Mode: s.setup.mode, Backend: s.setup.backend, MasqueradeAll: n == s.Nodes[masqueradeAll],
	})
}

// proxyRules returns kube-proxy's rules on a node, in an order that stays.
func (s *scene) proxyRules(t *testing.T, n *cluster.Node) []string {
	t.Helper()
	var rules []string
	if s.setup.mode == cluster.ProxyNFTables {
		for _, family := range []string{"ip", "ip6"} {
			// Elements of sets have no order.
			rules = append(rules, strings.Fields(strings.ReplaceAll(n.Run(t, "nft", "--stateless", "list", "table", family, "kube-proxy"), ",", " "))...)
		}
	} else {
		for _, family := range cluster.Families {
			for line := range strings.Lines(n.Run(t, s.setup.program(family)+"-save")) {
				if strings.HasPrefix(line, "-A KUBE-") || strings.Contains(line, "-j KUBE-") {
					rules = append(rules, family+" "+line)
				}
			}
		}
	}
	require.Greater(t, len(rules), 100, "kube-proxy on %s has no rules", n.Name)
	slices.Sort(rules)
	return rules
}
