package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// ProxyMode is a mode of kube-proxy.
type ProxyMode string

// Modes of kube-proxy.
const (
	ProxyIPTables ProxyMode = "iptables"
	ProxyNFTables ProxyMode = "nftables"
)

// Proxy is how kube-proxy runs.
type Proxy struct {
	Mode ProxyMode
	// Backend is the variant of iptables that it finds in its PATH.
	Backend       iptables.Backend
	MasqueradeAll bool
}

// proxyConfig is the local cluster's (hack/cluster/kube/templates), which leaves alone
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

// StartProxy starts the real kube-proxy on the node, which has to be in
// KUBEBUILDER_ASSETS. It ends with the test that is given; its rules stay.
func (n *Node) StartProxy(t testing.TB, p Proxy) *Process {
	t.Helper()
	program := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kube-proxy")
	require.FileExists(t, program, "hack/setup.sh puts it there")
	config := filepath.Join(t.TempDir(), "kube-proxy.yaml")
	kubeconfig := n.cluster.Kubeconfig(t, "system:kube-proxy")
	text := fmt.Sprintf(proxyConfig, p.Mode, PodCIDRs, n.Name, kubeconfig, p.MasqueradeAll, p.MasqueradeAll)
	require.NoError(t, os.WriteFile(config, []byte(text), 0o600))
	path := "PATH=" + programs(t, p.Backend) + ":" + os.Getenv("PATH")
	return n.Start(t, "kube-proxy", []string{path}, program, "--config="+config)
}

// programs makes a folder in which iptables is that of a backend.
func programs(t testing.TB, backend iptables.Backend) string {
	t.Helper()
	dir := t.TempDir()
	for _, family := range Families {
		for _, action := range []string{"", "-save", "-restore"} {
			multi, err := exec.LookPath(Program(backend, family) + action)
			require.NoError(t, err)
			// The program goes by the name that it is called by.
			multi, err = filepath.EvalSymlinks(multi)
			require.NoError(t, err)
			require.NoError(t, os.Symlink(multi, filepath.Join(dir, family+action)))
		}
	}
	return dir
}

// Families are those of iptables' programs.
var Families = []string{"iptables", "ip6tables"}

// Program returns the name of a backend's program for iptables or ip6tables.
func Program(backend iptables.Backend, family string) string {
	return strings.Replace(string(backend), "iptables", family, 1)
}

// flannelRules are what flanneld --ip-masq adds to a node's tables, in this order
// (pkg/trafficmngr/iptables). The node's own pods are %[1]s, all pods %[2]s and
// multicast %[3]s.
const flannelRules = `-t nat -N FLANNEL-POSTRTG
-t nat -A POSTROUTING -j FLANNEL-POSTRTG
-t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN
-t nat -A FLANNEL-POSTRTG -s %[1]s -d %[2]s -j RETURN
-t nat -A FLANNEL-POSTRTG -s %[2]s -d %[1]s -j RETURN
-t nat -A FLANNEL-POSTRTG ! -s %[2]s -d %[1]s -j RETURN
-t nat -A FLANNEL-POSTRTG -s %[2]s ! -d %[3]s -j MASQUERADE --random-fully
-t nat -A FLANNEL-POSTRTG ! -s %[2]s -d %[2]s -j MASQUERADE --random-fully
-t filter -N FLANNEL-FWD
-t filter -A FORWARD -j FLANNEL-FWD
-t filter -A FLANNEL-FWD -s %[2]s -j ACCEPT
-t filter -A FLANNEL-FWD -d %[2]s -j ACCEPT`

// AddFlannelRules gives the node the rules that Flannel gives it.
func (n *Node) AddFlannelRules(t testing.TB, backend iptables.Backend) {
	t.Helper()
	multicast := []string{"224.0.0.0/4", "ff00::/8"}
	all := strings.Split(PodCIDRs, ",")
	for i, family := range Families {
		for rule := range strings.SplitSeq(fmt.Sprintf(flannelRules, n.PodCIDRs()[i], all[i], multicast[i]), "\n") {
			n.Run(t, Program(backend, family), append([]string{"-w"}, strings.Fields(rule)...)...)
		}
	}
}
