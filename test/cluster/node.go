package cluster

import (
	"context"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// Node is a node's network with the processes in it.
type Node struct {
	*nodetest.Node
	Name string
	// Underlay are the addresses that other nodes know it by, one per family.
	Underlay []netip.Addr
	// Agent is the process of the last StartAgent.
	Agent *Process

	road       *nodetest.Road // to the API server
	cluster    *Cluster
	kubeconfig string // of its agents
	mu         sync.Mutex
	pods       int // that ever were
}

// Pods' addresses are podStride apart, so that a small ipBlock around one holds
// some of its neighbours and not all, and wrap after podRange, which is prime. No
// address has a new owner before all were used.
const (
	firstPod  = 10
	podStride = 7
	podRange  = 239
)

func (n *Node) nextAddrs() []netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	host := byte(firstPod + n.pods*podStride%podRange)
	n.pods++
	var addrs []netip.Addr
	for _, cidr := range n.PodCIDRs() {
		bytes := cidr.Addr().AsSlice()
		bytes[len(bytes)-1] = host
		addr, _ := netip.AddrFromSlice(bytes)
		addrs = append(addrs, addr)
	}
	return addrs
}

// serveAPI forwards the API server's address and port on the node's loopback to
// the API server, which is in another network: so a kubeconfig and its
// certificates are right in both, and the node's rules have no part in it.
func (n *Node) serveAPI(t testing.TB) {
	t.Helper()
	server, _, err := rest.DefaultServerUrlFor(n.cluster.server.AdminConfig(t))
	require.NoError(t, err)
	var listener net.Listener
	require.NoError(t, n.Do(func() (err error) {
		listener, err = net.Listen("tcp", server.Host)
		return err
	}))
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			from, err := listener.Accept()
			if err != nil {
				return
			}
			go n.forward(from, server.Host)
		}
	}()
}

// CutOff cuts the node's programs off from the API server, without a sign, until mend is
// called. The node's pods and whoever asks its programs still reach them.
func (n *Node) CutOff() (mend func()) {
	n.road.Cut()
	return n.road.Mend
}

// forward copies both ways until either end closes.
func (n *Node) forward(from net.Conn, address string) {
	defer func() { _ = from.Close() }()
	to, err := n.road.Dial(context.Background(), "tcp", address)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	ended := make(chan struct{}, 2)
	for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
		go func() {
			_, _ = io.Copy(pair[0], pair[1])
			ended <- struct{}{}
		}()
	}
	<-ended
}

// Kubeconfig writes a kubeconfig and returns its path. It is good in every node
// and in the test itself.
func (c *Cluster) Kubeconfig(t testing.TB, user string, groups ...string) string {
	t.Helper()
	return c.writeKubeconfig(t, user, c.server.User(t, user, groups...))
}

func (c *Cluster) writeKubeconfig(t testing.TB, user string, config *rest.Config) string {
	t.Helper()
	server, _, err := rest.DefaultServerUrlFor(config)
	require.NoError(t, err)
	file := clientcmdapi.NewConfig()
	file.Clusters["test"] = &clientcmdapi.Cluster{Server: server.String(), CertificateAuthorityData: config.CAData}
	file.AuthInfos["test"] = &clientcmdapi.AuthInfo{ClientCertificateData: config.CertData, ClientKeyData: config.KeyData, Token: config.BearerToken}
	file.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "test"}
	file.CurrentContext = "test"
	path := filepath.Join(c.dir, kubeconfigName(user))
	require.NoError(t, clientcmd.WriteToFile(*file, path))
	return path
}

// Run runs a program in the node to its end and returns its output.
func (n *Node) Run(t testing.TB, program string, args ...string) string {
	t.Helper()
	var output []byte
	err := n.Do(func() (err error) {
		cmd := exec.Command(program, args...)
		cmd.Env = n.env()
		output, err = cmd.CombinedOutput()
		return err
	})
	require.NoError(t, err, "%s %v on %s: %s", program, args, n.Name, output)
	return string(output)
}

// env is the environment of the node's programs. They share a lock of iptables
// with each other, and not with other nodes.
func (n *Node) env() []string { return append(os.Environ(), "XTABLES_LOCKFILE="+n.LockFile()) }

// LockFile is the file whose lock iptables-legacy holds while it works on the node.
func (n *Node) LockFile() string { return filepath.Join(n.cluster.dir, n.Name+"-xtables.lock") }
