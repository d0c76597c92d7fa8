package bench

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/cluster"
)

// The pods that send are in the second namespace, of the same team as the first,
// whose first pod they send to. They are remote. A policy lets memberApp in.
const (
	targetNamespace = 0
	senderNamespace = 1

	memberApp   = "a1"
	strangerApp = "stranger"

	firstSender = 10
)

// probePolicy is the name of the policy that is created and deleted.
const probePolicy = "probe"

// scene is a scenario's cluster with the agent of its one node of interest.
type scene struct {
	options *options
	size    size
	cluster *cluster.Cluster
	api     kubernetes.Interface
	node    *cluster.Node
	spare   *cluster.Node // has no pods and no agent

	target    *nodetest.Host // the first local pod
	visitor   *nodetest.Host // a stranger whose label changes
	inspector *nodetest.Host // whom only the probe policy lets in
	member    *nodetest.Host // who is always let in

	background rates                  // of the agent when nothing changes
	remote     []types.NamespacedName // pods that the churn and kubelets may change
	rounds     int                    // that the churn has begun
	statuses   int                    // that kubelets have written
	stalls     []float64              // of the machine's memory, before each turn of samples
}

// newScene makes the cluster and its pods. The agent isn't started.
func newScene(t testing.TB, o *options, s size) *scene {
	t.Helper()
	sc := &scene{options: o, size: s, remote: s.remotePods()}
	during("starting etcd and the API server", nil, func() {
		sc.cluster = cluster.New(t, cluster.Options{Nodes: 3, Primary: ruleset.IPv4, APIServerFlags: unlimited, EtcdFlags: roomy})
	})
	sc.node, sc.spare = sc.cluster.Nodes[0], sc.cluster.Nodes[2]
	sc.api = newClientset(t, sc.cluster.Config(t))
	load(t, sc.api, s)
	during("starting the API server anew", nil, func() { sc.cluster.Crash(t, "kube-apiserver")(t) })
	during(fmt.Sprintf("making the networks of %d local pods", s.local), nil, func() {
		for j := range s.local {
			host := sc.node.AddPod(t, localAddr(firstLocal+j).String())
			if j == 0 {
				sc.target = host
			}
		}
	})
	sc.visitor = sc.addSender(t, 0, "visitor", strangerApp)
	sc.inspector = sc.addSender(t, 1, "inspector", "inspector")
	sc.member = sc.addSender(t, 2, "member", memberApp)
	return sc
}

// addSender adds a pod on the other node.
func (s *scene) addSender(t testing.TB, number int, name, app string) *nodetest.Host {
	t.Helper()
	host := s.cluster.Nodes[1].AddPod(t, fmt.Sprintf("10.244.2.%d", firstSender+number))
	pod := newPod(namespaceName(senderNamespace), name, map[string]string{"app": app})
	place(pod, senderNode, host.Addrs[0])
	require.NoError(t, runPod(t.Context(), s.api, pod))
	return host
}

// setApp changes the label of a sender.
func (s *scene) setApp(t testing.TB, name, app string) {
	t.Helper()
	_, err := s.api.CoreV1().Pods(namespaceName(senderNamespace)).Patch(t.Context(), name, types.MergePatchType, appPatch(app), metav1.PatchOptions{})
	require.NoError(t, err)
}

func appPatch(app string) []byte {
	text, _ := json.Marshal(map[string]any{"metadata": map[string]any{"labels": map[string]string{"app": app}}})
	return text
}

// createPolicy lets the inspector reach the target's app.
func (s *scene) createPolicy(t testing.TB) {
	t.Helper()
	policy := newPolicy(targetNamespace, probePolicy, metav1.LabelSelector{MatchLabels: appLabels(0)},
		[]networkingv1.NetworkPolicyPeer{appOfTeam(senderNamespace, map[string]string{"app": "inspector"})}, nil)
	_, err := s.api.NetworkingV1().NetworkPolicies(policy.Namespace).Create(t.Context(), policy, metav1.CreateOptions{})
	require.NoError(t, err)
}

func (s *scene) deletePolicy(t testing.TB) {
	t.Helper()
	require.NoError(t, s.api.NetworkingV1().NetworkPolicies(namespaceName(targetNamespace)).Delete(t.Context(), probePolicy, metav1.DeleteOptions{}))
}

// startAgent starts the agent and returns how long it took to be ready.
func (s *scene) startAgent(t testing.TB) time.Duration {
	t.Helper()
	start := time.Now()
	s.node.StartAgent(t, s.options.backend, s.agentFlags()...)
	require.Eventually(t, s.node.AgentReady, readyWithin, 5*time.Millisecond, "the agent isn't ready; its log is %s", s.node.Agent.Log)
	took := time.Since(start)
	s.node.AwaitAgent(t)
	return took
}

// readyWithin bounds the start of an agent, with 100,000 pods on a busy machine.
const readyWithin = 3 * time.Minute
