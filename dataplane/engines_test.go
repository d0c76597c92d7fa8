package dataplane

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

func TestEnginesAreKnownByWhatTheyLeave(t *testing.T) {
	for name, row := range map[string]struct {
		chain  iptables.Chain
		engine string
	}{
		"Calico":                          {iptables.Chain{Table: "filter", Name: "cali-FORWARD"}, "Calico"},
		"Calico with nftables":            {iptables.Chain{Table: "calico", Name: "filter-FORWARD"}, "Calico"},
		"kube-router, k3s":                {iptables.Chain{Table: "filter", Name: "KUBE-ROUTER-FORWARD"}, "kube-router"},
		"a policy of kube-router":         {iptables.Chain{Table: "filter", Name: "KUBE-NWPLCY-AAAA"}, "kube-router"},
		"a pod of kube-router":            {iptables.Chain{Table: "filter", Name: "KUBE-POD-FW-AAAA"}, "kube-router"},
		"Services of kube-router":         {iptables.Chain{Table: "filter", Name: "KUBE-ROUTER-SERVICES"}, ""},
		"Weave":                           {iptables.Chain{Table: "filter", Name: "WEAVE-NPC-DEFAULT"}, "Weave Net"},
		"Weave without policies":          {iptables.Chain{Table: "filter", Name: "WEAVE-EXPOSE"}, ""},
		"Cilium":                          {iptables.Chain{Table: "mangle", Name: "CILIUM_PRE_mangle"}, "Cilium"},
		"Antrea":                          {iptables.Chain{Table: "filter", Name: "ANTREA-FORWARD"}, "Antrea"},
		"kube-network-policies":           {iptables.Chain{Table: "kube-network-policies", Name: "postrouting"}, "kube-network-policies"},
		"kindnet":                         {iptables.Chain{Table: "kindnet-network-policies", Name: "postrouting"}, "kindnet"},
		"kube-proxy":                      {iptables.Chain{Table: "filter", Name: "KUBE-FORWARD"}, ""},
		"kube-proxy with nftables":        {iptables.Chain{Table: "kube-proxy", Name: "filter-forward"}, ""},
		"Flannel":                         {iptables.Chain{Table: "filter", Name: "FLANNEL-FWD"}, ""},
		"Moat":                            {iptables.Chain{Table: "mangle", Name: "MOAT-FORWARD"}, ""},
		"somebody who has a like name":    {iptables.Chain{Table: "filter", Name: "MY-cali-FORWARD"}, ""},
		"a table with a like name of nft": {iptables.Chain{Table: "calico-typha", Name: "x"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			found := enginesOf([]iptables.Chain{{Table: "nat", Name: "OTHER"}, row.chain, row.chain})
			if row.engine == "" {
				require.Empty(t, found)
				return
			}
			require.Len(t, found, 1, "an engine is named once")
			require.Contains(t, found[0], row.engine+" (chain "+row.chain.Name+" in table "+row.chain.Table)
		})
	}
}

func TestStraysAreMoatsChainsElsewhere(t *testing.T) {
	require.Equal(t, []stray{{iptables.Legacy, 4, "filter"}, {iptables.NFT, 6, "raw"}}, straysOf([]iptables.Chain{
		{Backend: iptables.NFT, Family: "IPv4", Table: "mangle", Name: "MOAT-FORWARD"},
		{Backend: iptables.NFT, Family: "IPv6", Table: "raw", Name: "MOAT-OLD"},
		{Backend: iptables.Legacy, Family: "IPv4", Table: "filter", Name: "MOAT-FORWARD"},
		{Backend: iptables.Legacy, Family: "IPv4", Table: "filter", Name: "MOAT-INPUT"},
		{Backend: iptables.NFT, Family: "inet", Table: "filter", Name: "MOAT-FORWARD"},
		{Backend: iptables.NFT, Family: "IPv4", Table: "moat", Name: "MOAT-FORWARD"},
		{Backend: iptables.NFT, Family: "IPv4", Table: "filter", Name: "NOT-MOAT-"},
	}))
}
