package cluster_test

import (
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/departure"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/cluster"
)

// node is a node of its own release, with a pod that a policy closes.
type node struct {
	*cluster.Node
	release *cluster.Release
	t       *testing.T
	cluster *cluster.Cluster
	outside *nodetest.Host
	server  *cluster.Pod
}

// closed reports whether the pod is closed, and fails if the answer isn't the same for
// both families.
func (n *node) closed() bool {
	n.t.Helper()
	var reached [2]bool
	for i, addr := range n.server.Addrs {
		reached[i] = n.outside.TCP(addr, 80, 300*time.Millisecond)
	}
	require.Equal(n.t, reached[0], reached[1], "both families")
	return !reached[0]
}

// requireEnd waits until the agent has ended, and checks what is in the kernel then.
func (n *node) requireEnd(want departure.Verdict, reason string, least, most time.Duration) {
	n.t.Helper()
	start := time.Now()
	for n.Agent.Running() && time.Since(start) < least {
		require.True(n.t, n.closed(), "the agent enforces until it is decided")
	}
	require.Eventually(n.t, func() bool { return !n.Agent.Running() }, most, 10*time.Millisecond, "the agent ends")
	require.GreaterOrEqual(n.t, time.Since(start), least, "%s", n.log())
	require.Contains(n.t, n.log(), reason)
	n.require(want)
}

func (n *node) require(want departure.Verdict) {
	n.t.Helper()
	rules := n.Rules(n.t, iptables.NFT)
	require.Equal(n.t, want == departure.Leave, n.closed(), "%s", n.log())
	for _, trace := range []string{"MOAT-", "MOAT_", "moat-"} {
		require.Equal(n.t, want == departure.Leave, strings.Contains(rules, trace), rules)
	}
	require.Equal(n.t, want == departure.Leave, n.hasReport(), "a report goes with the rules, and no sooner\n%s", n.log())
}

func (n *node) hasReport() bool {
	n.t.Helper()
	err := n.cluster.Client.Get(n.t.Context(), client.ObjectKey{Name: n.Name}, &v1alpha1.NodeEnforcement{})
	require.NoError(n.t, client.IgnoreNotFound(err))
	return err == nil
}

func (n *node) log() string {
	n.t.Helper()
	text, err := os.ReadFile(n.Agent.Log)
	require.NoError(n.t, err)
	return string(text)
}

func (n *node) create(object client.Object) {
	n.t.Helper()
	require.NoError(n.t, n.cluster.Client.Create(n.t.Context(), object))
}

func (n *node) delete(object client.Object) {
	n.t.Helper()
	require.NoError(n.t, n.cluster.Client.Delete(n.t.Context(), object))
}

// promptly is how soon an agent ends that waits for nothing: a second on a quiet machine,
// and less than any wait on a busy one.
const promptly = 5 * time.Second

// slack is what a busy machine may add to a wait.
const slack = 8 * time.Second

// The agent as it is shipped, told to end while different things happen to its release.
func TestAnAgentEnds(t *testing.T) {
	const stays, goes = departure.Leave, departure.Clean
	rows := map[string]func(*node){
		"update": func(n *node) {
			n.release.EndAgent(n.t, n.Node)
			n.requireEnd(stays, "wants this Node", 0, promptly)
		},
		"restart of the container": func(n *node) {
			n.Agent.Signal(syscall.SIGTERM)
			n.requireEnd(stays, "its pod is not being deleted", 0, promptly)
			n.release.StartAgent(n.t, n.Node)
			n.AwaitAgent(n.t)
		},
		"namespace deleted": func(n *node) {
			n.delete(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n.release.Namespace}})
			n.release.EndAgent(n.t, n.Node)
			n.requireEnd(goes, "its Namespace is being deleted", 0, slack)
		},
		"marker deleted, and back in time": func(n *node) {
			n.delete(n.release.DaemonSet(n.t))
			n.delete(n.release.Marker(n.t))
			n.release.EndAgent(n.t, n.Node)
			require.Eventually(n.t, func() bool { return strings.Contains(n.log(), "may come back") }, slack, 10*time.Millisecond)
			n.create(n.release.Marker(n.t))
			n.requireEnd(stays, "marker is still there", departure.MarkerPatience-slack, departure.MarkerPatience+slack)
		},
		"DaemonSet deleted and made again": func(n *node) {
			n.delete(n.release.DaemonSet(n.t))
			n.create(n.release.DaemonSet(n.t))
			n.release.EndAgent(n.t, n.Node)
			n.requireEnd(stays, "wants this Node", 0, promptly)
		},
		"all made again, the DaemonSet late": func(n *node) {
			n.delete(n.release.DaemonSet(n.t))
			n.delete(n.release.Marker(n.t))
			n.release.EndAgent(n.t, n.Node)
			require.Eventually(n.t, func() bool { return strings.Contains(n.log(), "may come back") }, slack, 10*time.Millisecond)
			n.create(n.release.DaemonSet(n.t))
			n.create(n.release.Marker(n.t))
			n.requireEnd(stays, "wants this Node", 0, promptly)
		},
		"nodeSelector narrowed": func(n *node) {
			daemonSet := n.release.DaemonSet(n.t)
			require.NoError(n.t, n.cluster.Client.Get(n.t.Context(), client.ObjectKeyFromObject(daemonSet), daemonSet))
			daemonSet.Spec.Template.Spec.NodeSelector = map[string]string{"moat": "yes"}
			require.NoError(n.t, n.cluster.Client.Update(n.t.Context(), daemonSet))
			n.release.EndAgent(n.t, n.Node)
			n.requireEnd(goes, "does not select this Node", 0, slack)
		},
		"API server away": func(n *node) {
			server, err := url.Parse(n.cluster.Config(n.t).Host)
			require.NoError(n.t, err)
			n.delete(n.release.DaemonSet(n.t))
			n.Run(n.t, "iptables-nft", "-I", "OUTPUT", "-p", "tcp", "--dport", server.Port(), "-j", "REJECT", "--reject-with", "tcp-reset")
			n.release.EndAgent(n.t, n.Node)
			n.requireEnd(stays, "the API server does not answer", departure.ServerPatience-departure.ServerPause, departure.ServerPatience+slack)
		},
		"a second signal": func(n *node) {
			n.delete(n.release.DaemonSet(n.t))
			n.release.EndAgent(n.t, n.Node)
			require.Eventually(n.t, func() bool { return strings.Contains(n.log(), "it may be deleted") }, slack, 10*time.Millisecond)
			n.Agent.Signal(syscall.SIGTERM)
			n.requireEnd(stays, "", 0, promptly)
		},
		"no marker, as with an older chart": func(n *node) {
			n.delete(n.release.Marker(n.t))
			n.Agent.Signal(syscall.SIGTERM)
			n.requireEnd(stays, "its pod is not being deleted", 0, promptly)
			n.release.StartAgent(n.t, n.Node)
			n.AwaitAgent(n.t)
			n.delete(n.release.DaemonSet(n.t))
			n.release.EndAgent(n.t, n.Node)
			n.requireEnd(stays, "has no marker", 0, promptly)
		},
		// A chart of before 0.3.0 has neither the agents' Role nor the marker. Where Moat is
		// removed, their ClusterRole goes, too.
		"a step back to an older chart": func(n *node) {
			n.release.TakeRights(n.t)
			n.delete(n.release.Marker(n.t))
			n.release.EndAgent(n.t, n.Node)
			n.requireEnd(stays, "the agents' other rights stay", departure.MarkerPatience-slack, departure.MarkerPatience+slack)
		},
		// As when the image is newer than its chart.
		"no rights": func(n *node) {
			n.release.TakeRights(n.t)
			n.Agent.Kill(n.t)
			n.release.StartAgent(n.t, n.Node)
			n.AwaitAgent(n.t)
			n.delete(n.release.DaemonSet(n.t))
			n.delete(n.release.Marker(n.t))
			n.release.EndAgent(n.t, n.Node)
			n.requireEnd(stays, "has no marker", 0, promptly)
		},
		"another agent waits": testAnotherAgentWaits,
	}
	c := cluster.New(t, cluster.Options{Nodes: len(rows), Primary: ruleset.IPv4})
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "closed"}}
	require.NoError(t, c.Client.Create(t.Context(), policy))
	nodes := map[string]*node{}
	for name := range rows {
		n := c.Nodes[len(nodes)]
		nodes[name] = &node{Node: n, release: c.Release(t, "release-of-"+n.Name), cluster: c, outside: c.World, server: c.AddPod(t, n, pod("server-"+n.Name))}
	}
	for name, end := range rows {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := nodes[name]
			n.t = t
			n.release.StartAgent(t, n.Node)
			n.AwaitAgent(t)
			require.True(t, n.closed())
			require.Eventually(t, n.hasReport, slack, 10*time.Millisecond)
			end(n)
		})
	}
}

// The next agent begins when the one before has cleaned the node, and not sooner.
func testAnotherAgentWaits(n *node) {
	n.delete(n.release.DaemonSet(n.t))
	n.delete(n.release.Marker(n.t))
	n.release.EndAgent(n.t, n.Node)
	first, started := n.Agent, time.Now()
	kubeconfig := filepath.Join(filepath.Dir(first.Log), n.Name+"-agent.kubeconfig")
	next := n.Start(n.t, "next-agent", append([]string{"KUBECONFIG=" + kubeconfig}, "POD_NAMESPACE="+n.release.Namespace, "POD_NAME=next"),
		os.Getenv("MOAT_BINARY"), "agent", "--node-name="+n.Name, "--iptables-backend=nft", "--pod-start-guard=Off")
	said := func(text string) bool {
		log, err := os.ReadFile(next.Log)
		require.NoError(n.t, err)
		return strings.Contains(string(log), text)
	}
	require.Eventually(n.t, func() bool { return said("heldBy=" + n.release.Namespace + "/moat-agent-" + n.Name) }, slack, 10*time.Millisecond)
	require.Eventually(n.t, func() bool { return said("starting the agent") }, departure.MarkerAway+slack, time.Millisecond)
	require.Contains(n.t, n.log(), "Nothing of Moat is left", "the first one is done when the next one begins")
	require.GreaterOrEqual(n.t, time.Since(started), departure.MarkerAway-time.Second)
	require.Eventually(n.t, func() bool { return !first.Running() && n.closed() }, time.Minute, 10*time.Millisecond)
	require.True(n.t, n.AgentReady())
	next.Kill(n.t)
}
