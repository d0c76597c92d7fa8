package services

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/test/cluster"
)

// proxyMode is a mode of kube-proxy.
type proxyMode string

const (
	proxyIPTables proxyMode = "iptables"
	proxyNFTables proxyMode = "nftables"
)

// setup is what writes a node's rules.
type setup struct {
	mode    proxyMode
	backend iptables.Backend // of Moat, Flannel and, in its iptables mode, kube-proxy
}

var setups = map[string]setup{
	"kube-proxy with iptables-nft":    {proxyIPTables, iptables.NFT},
	"kube-proxy with iptables-legacy": {proxyIPTables, iptables.Legacy},
	"kube-proxy with nftables":        {proxyNFTables, iptables.NFT},
}

// families are those of iptables' programs.
var families = []string{"iptables", "ip6tables"}

// program returns the setup's program of a family.
func (s setup) program(family string) string {
	return strings.Replace(string(s.backend), "iptables", family, 1)
}

// proxyConfig is the local cluster's (hack/cluster/templates), which leaves alone
// what a node's namespace can't change.
const proxyConfig = `apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: %s
clusterCIDR: %s
hostnameOverride: %s
clientConnection:
  kubeconfig: %s
iptables:
  masqueradeAll: %t
nftables:
  masqueradeAll: %t
conntrack:
  maxPerCore: 0
  min: 0
  tcpEstablishedTimeout: 0s
  tcpCloseWaitTimeout: 0s
  udpTimeout: 0s
  udpStreamTimeout: 0s
`

// startProxy starts kube-proxy on a node. The node masqueradeAll has the setting of
// that name.
func (s *scene) startProxy(t *testing.T, n *cluster.Node) *cluster.Process {
	t.Helper()
	program := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kube-proxy")
	require.FileExists(t, program, "`make conformance` puts it there")
	all := n == s.Nodes[masqueradeAll]
	config := filepath.Join(s.test.TempDir(), "kube-proxy.yaml")
	text := fmt.Sprintf(proxyConfig, s.setup.mode, strings.Join(podCIDRs, ","), n.Name, s.Kubeconfig(t, "system:kube-proxy"), all, all)
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
	path := "PATH=" + s.programs(t) + ":" + os.Getenv("PATH")
	return n.Start(s.test, "kube-proxy", []string{path}, program, "--config="+config)
}

// programs makes a folder in which iptables is that of the setup's backend.
func (s *scene) programs(t *testing.T) string {
	t.Helper()
	dir := s.test.TempDir()
	for _, family := range families {
		for _, action := range []string{"", "-save", "-restore"} {
			multi, err := exec.LookPath(s.setup.program(family) + action)
			require.NoError(t, err)
			// The program goes by the name that it is called by.
			multi, err = filepath.EvalSymlinks(multi)
			require.NoError(t, err)
			require.NoError(t, os.Symlink(multi, filepath.Join(dir, family+action)))
		}
	}
	return dir
}

// proxyRules returns kube-proxy's rules on a node, in an order that stays.
func (s *scene) proxyRules(t *testing.T, n *cluster.Node) []string {
	t.Helper()
	var rules []string
	if s.setup.mode == proxyNFTables {
		for _, family := range []string{"ip", "ip6"} {
			// Elements of sets have no order.
			rules = append(rules, strings.Fields(strings.ReplaceAll(n.Run(t, "nft", "--stateless", "list", "table", family, "kube-proxy"), ",", " "))...)
		}
	} else {
		for _, family := range families {
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

// masquerade is what flanneld --ip-masq adds to a node's nat table, in this order.
// The node's own pods are %[1]s, all pods %[2]s and multicast %[3]s.
const masquerade = `-N FLANNEL-POSTRTG
-A POSTROUTING -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
-A FLANNEL-POSTRTG -s %[1]s -d %[2]s -j RETURN
-A FLANNEL-POSTRTG -s %[2]s -d %[1]s -j RETURN
-A FLANNEL-POSTRTG ! -s %[2]s -d %[1]s -j RETURN
-A FLANNEL-POSTRTG -s %[2]s ! -d %[3]s -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s %[2]s -d %[2]s -j MASQUERADE --random-fully`

func (s *scene) masquerade(t *testing.T, n *cluster.Node) {
	t.Helper()
	multicast := []string{"224.0.0.0/4", "ff00::/8"}
	for i, own := range n.PodCIDRs() {
		for rule := range strings.SplitSeq(fmt.Sprintf(masquerade, own, podCIDRs[i], multicast[i]), "\n") {
			n.Run(t, s.setup.program(families[i]), append([]string{"-w", "-t", "nat"}, strings.Fields(rule)...)...)
		}
	}
}
