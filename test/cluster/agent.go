package cluster

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// binaryVariable names the file of the built cmd/moat.
const binaryVariable = "MOAT_BINARY"

// agentHealth is where an agent serves its health checks by default, on its node.
const agentHealth = "127.0.0.1:9471"

// backendFlags are the values of --iptables-backend.
var backendFlags = map[iptables.Backend]string{iptables.NFT: "nft", iptables.Legacy: "legacy", "": "auto"}

// StartAgents starts an agent on every node, with further flags, and waits until
// they are ready.
func (c *Cluster) StartAgents(t testing.TB, backend iptables.Backend, flags ...string) {
	t.Helper()
	for _, n := range c.Nodes {
		n.StartAgent(t, backend, flags...)
	}
	c.AwaitAgents(t)
}

// StartAgent starts the node's agent with its defaults, the backend and further
// flags. It returns before the agent is ready.
func (n *Node) StartAgent(t testing.TB, backend iptables.Backend, flags ...string) {
	t.Helper()
	n.StartAgentOf(t, moatBinary(t), nil, backend, flags...)
}

// StartAgentOf is StartAgent with a build of cmd/moat and further variables of its
// environment. It asks no container runtime unless a flag says so: the default socket
// is the machine's own, and there are pods without one here.
func (n *Node) StartAgentOf(t testing.TB, binary string, env []string, backend iptables.Backend, flags ...string) {
	t.Helper()
	require.False(t, n.Agent != nil && n.Agent.Running(), "%s has an agent", n.Name)
	if n.kubeconfig == "" {
		n.kubeconfig = n.cluster.writeKubeconfig(t, n.Name+"-agent", n.cluster.server.Agent(t, n.Name))
	}
	args := append([]string{"agent", "--node-name=" + n.Name, "--iptables-backend=" + backendFlags[backend], "--pod-start-guard=Off"}, flags...)
	agent := n.Start(t, "agent", append([]string{"KUBECONFIG=" + n.kubeconfig}, env...), binary, args...)
	t.Cleanup(func() {
		if t.Failed() {
			agent.Explain()
		}
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.Agent = agent
}

func moatBinary(t testing.TB) string {
	t.Helper()
	binary := os.Getenv(binaryVariable)
	require.NotEmpty(t, binary, "%s is not set: it names the built cmd/moat", binaryVariable)
	return binary
}

// StopAgents stops all agents as a kubelet does. Their rules stay.
func (c *Cluster) StopAgents(t testing.TB) {
	t.Helper()
	for _, n := range c.Nodes {
		n.Agent.Stop(t)
	}
}

// AwaitAgents waits until every agent is ready and its NodeEnforcement says so: its
// kernel holds the rules of all policies that the agent has seen.
func (c *Cluster) AwaitAgents(t testing.TB) {
	t.Helper()
	for _, n := range c.Nodes {
		n.AwaitAgent(t)
	}
}

// AwaitAgent is AwaitAgents for one node.
func (n *Node) AwaitAgent(t testing.TB) {
	t.Helper()
	n.await(t, n.AgentReady, "the agent of %s isn't ready", n.Name)
	n.await(t, func() bool {
		report, err := n.report(t.Context())
		return err == nil && apimeta.IsStatusConditionTrue(report.Status.Conditions, v1alpha1.NodeConditionDataplaneSynced)
	}, "%s doesn't report that its rules are in the kernel", n.Name)
}

// AwaitEnforced waits until every node that runs a pod that the policy selects
// reports the policy as it is stored now.
func (c *Cluster) AwaitEnforced(t testing.TB, key types.NamespacedName) {
	t.Helper()
	policy, pods := &networkingv1.NetworkPolicy{}, &corev1.PodList{}
	require.NoError(t, c.Client.Get(t.Context(), key, policy))
	selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
	require.NoError(t, err)
	require.NoError(t, c.Client.List(t.Context(), pods, client.InNamespace(key.Namespace), client.MatchingLabelsSelector{Selector: selector}))
	want := v1alpha1.EnforcedPolicy{UID: policy.UID, Generation: policy.Generation}
	for _, pod := range pods.Items {
		n := c.Node(t, pod.Spec.NodeName)
		n.await(t, func() bool {
			report, err := n.report(t.Context())
			return err == nil && slices.Contains(report.Status.Policies, want)
		}, "%s doesn't report policy %s", n.Name, key)
	}
}

// AwaitCondition waits until a node reports a condition as True, for a reason.
func (c *Cluster) AwaitCondition(t testing.TB, n *Node, condition, reason string) {
	t.Helper()
	n.await(t, func() bool {
		report, err := n.report(t.Context())
		found := apimeta.FindStatusCondition(report.Status.Conditions, condition)
		return err == nil && found != nil && found.Status == metav1.ConditionTrue && found.Reason == reason
	}, "%s doesn't report %s for %s", n.Name, condition, reason)
}

func (n *Node) report(ctx context.Context) (*v1alpha1.NodeEnforcement, error) {
	report := &v1alpha1.NodeEnforcement{}
	return report, n.cluster.Client.Get(ctx, types.NamespacedName{Name: n.Name}, report)
}

// await polls a condition while the agent runs. When it fails it says what the
// agent said last.
func (n *Node) await(t testing.TB, condition func() bool, format string, args ...any) {
	t.Helper()
	satisfied := func() bool { return !n.Agent.Running() || condition() }
	explain := func() string { return fmt.Sprintf(format, args...) + "\n" + lastLines(n.Agent.Log) }
	require.Eventually(t, satisfied, eventually, poll, "%s", lazy(explain))
	require.True(t, n.Agent.Running(), "the agent of %s ended\n%s", n.Name, lastLines(n.Agent.Log))
}

// lazy is a text that is made when it is printed.
type lazy func() string

func (l lazy) String() string { return l() }

// lastLines returns the end of a log.
func lastLines(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	lines := strings.SplitAfter(string(text), "\n")
	return strings.Join(lines[max(0, len(lines)-20):], "")
}

// AgentReady asks the agent's readiness check as a kubelet does.
func (n *Node) AgentReady() bool {
	_, err := n.get("http://"+agentHealth+"/readyz", probeTimeout)
	return err == nil
}

// get asks a server in the node.
func (n *Node) get(url string, within time.Duration) (body []byte, err error) {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, address string) (conn net.Conn, err error) {
			err = n.Do(func() error {
				conn, err = net.Dial(network, address)
				return err
			})
			return conn, err
		},
	}
	return fetch(&http.Client{Transport: transport, Timeout: within}, url)
}

// fetch returns what a server says at an address, if it says that all is well.
func fetch(client *http.Client, url string) ([]byte, error) {
	response, err := client.Get(url) //nolint:noctx // The client has a timeout.
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", url, response.Status, body)
	}
	return body, err
}
