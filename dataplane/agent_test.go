package dataplane

import (
	"context"
	"flag"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/health"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/lastword"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/notify"
	"github.com/moat-dev/moat/dataplane/policystore"
	"github.com/moat-dev/moat/dataplane/watch"
	"github.com/moat-dev/moat/internal/apiservertest"
)

var apiServer = apiservertest.Server{Admission: true}

func TestMain(m *testing.M) {
	// Tests that send packets wait more than they compute.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	// The lock of iptables-legacy is the machine's, and not the network namespace's: tests of
	// other packages and other programs would hold up these.
	dir, err := os.MkdirTemp("", "moat")
	if err != nil {
		panic(err)
	}
	if err := os.Setenv("XTABLES_LOCKFILE", filepath.Join(dir, "xtables.lock")); err != nil {
		panic(err)
	}
	code := apiServer.Run(m)
	if err := os.RemoveAll(dir); err != nil {
		panic(err)
	}
	os.Exit(code)
}

// agentScene is a real API server, a node and the node's agent.
type agentScene struct {
	t         *testing.T
	admin     client.Client
	namespace string
	nodeName  string
	backend   iptables.Backend
	node      *nodetest.Node
	words     *lastword.Words
	policies  *policystore.Store
	dial      func(ctx context.Context, network, address string) (net.Conn, error) // nil: as usual
	agent     *Agent
	stop      func()
}

func newAgentScene(t *testing.T) *agentScene {
	t.Helper()
	nodetest.RequireKernel(t)
	s := &agentScene{t: t, admin: apiServer.Admin(t), namespace: apiServer.Namespace(t), backend: iptables.NFT, node: nodetest.NewNode(t), words: lastword.New(), policies: policystore.New(0)}
	object := &corev1.Node{ObjectMeta: metav1.ObjectMeta{GenerateName: "node-"}}
	require.NoError(t, s.admin.Create(t.Context(), object))
	s.nodeName = object.Name
	return s
}

// start starts the agent: its kernel half in the node, its API half where the API
// server is.
func (s *agentScene) start() {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	config := apiServer.Agent(s.t, s.nodeName)
	config.Dial = s.dial
	mgr := s.manager(config)
	var err error
	s.agent, err = newAgent(ctx, mgr, Options{NodeName: s.nodeName, Backend: s.backend, SysctlDir: "/proc/sys/net", Words: s.words, Policies: s.policies})
	require.NoError(s.t, err)
	s.agent.storage.Every = time.Second
	require.NoError(s.t, mgr.Add(s.agent.reporter))
	require.NoError(s.t, mgr.Add(s.agent.storage))

	ended := make(chan error, 2)
	go func() { ended <- mgr.Start(ctx) }()
	go func() { ended <- s.node.Do(func() error { return s.agent.Start(ctx) }) }()
	s.stop = func() {
		cancel()
		require.NoError(s.t, <-ended)
		require.NoError(s.t, <-ended)
	}
	s.t.Cleanup(func() { cancel() })
}

func (s *agentScene) manager(config *rest.Config) manager.Manager {
	s.t.Helper()
	options := watch.ManagerOptions(apiservertest.NewScheme(), s.nodeName, s.words, s.policies)
	options.Metrics = server.Options{BindAddress: "0"}
	mgr, err := manager.New(config, options)
	require.NoError(s.t, err)
	return mgr
}

func (s *agentScene) pod(name string, labels map[string]string, host *nodetest.Host) *corev1.Pod {
	s.t.Helper()
	return s.podIn(s.namespace, name, labels, host)
}

func (s *agentScene) podIn(namespace, name string, labels map[string]string, host *nodetest.Host) *corev1.Pod {
	s.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			NodeName:                     s.nodeName,
			AutomountServiceAccountToken: new(bool),
			Containers:                   []corev1.Container{{Name: "main", Image: "none"}},
		},
	}
	require.NoError(s.t, s.admin.Create(s.t.Context(), pod))
	s.t.Cleanup(func() { // another test's pod may get the address
		_ = s.admin.Delete(context.Background(), pod, client.GracePeriodSeconds(0))
	})
	pod.Status.Phase = corev1.PodRunning
	pod.Status.PodIP = host.Addrs[0].String()
	pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
	require.NoError(s.t, s.admin.Status().Update(s.t.Context(), pod))
	return pod
}

func (s *agentScene) report() *v1alpha1.NodeEnforcement {
	report := &v1alpha1.NodeEnforcement{}
	_ = s.admin.Get(context.Background(), client.ObjectKey{Name: s.nodeName}, report)
	return report
}

// enforces reports whether the node says that this generation is in force.
func (s *agentScene) enforces(np *networkingv1.NetworkPolicy) bool {
	for _, enforced := range s.report().Status.Policies {
		if enforced.UID == np.UID && enforced.Generation == np.Generation {
			return true
		}
	}
	return false
}

func (s *agentScene) eventually(condition func() bool, message string) {
	s.t.Helper()
	require.Eventually(s.t, condition, 15*time.Second, 20*time.Millisecond, message)
}

// The whole way of a policy through the agent: API server, informers, kernel,
// packets, report; with the rights of the agent's own role.
func TestAgent(t *testing.T) {
	s := newAgentScene(t)
	server := s.node.AddPod(t, "10.244.1.10")
	peer := s.node.AddPod(t, "10.244.1.11")
	server.ServeTCP(t, 80)
	addr := server.Addrs[0]
	pod := s.pod("server", map[string]string{"app": "server"}, server)
	s.pod("client", map[string]string{"app": "client"}, peer)
	reaches := func() bool { return peer.TCP(addr, 80, silentAfter) }
	s.start()

	np := &networkingv1.NetworkPolicy{}
	require.NoError(t, yaml.Unmarshal([]byte(`
metadata: {name: server}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {allowed: "yes"}}}]}]`), np))
	np.Namespace = s.namespace
	require.True(t, reaches())
	require.NoError(t, s.admin.Create(t.Context(), np))
	s.eventually(func() bool { return s.enforces(np) }, "the report names the policy")
	require.False(t, reaches(), "what is reported is in force")
	require.NoError(t, s.agent.health.Ready())

	report := s.report()
	require.Equal(t, "iptables-nft", report.Status.Backend)
	require.True(t, apimeta.IsStatusConditionTrue(report.Status.Conditions, v1alpha1.NodeConditionDataplaneSynced))
	require.True(t, apimeta.IsStatusConditionFalse(report.Status.Conditions, v1alpha1.NodeConditionDegraded))
	require.Equal(t, "Node", report.OwnerReferences[0].Kind)

	// A change that alters no rule is confirmed all the same.
	np.Spec.Ingress = append(np.Spec.Ingress, np.Spec.Ingress[0])
	require.NoError(t, s.admin.Update(t.Context(), np))
	require.EqualValues(t, 2, np.Generation)
	s.eventually(func() bool { return s.enforces(np) }, "generation 2 is confirmed")

	// Without agent the rules stand.
	s.stop()
	require.False(t, reaches())
	require.NoError(t, s.admin.Delete(t.Context(), np))
	require.False(t, reaches())

	// The next agent catches up.
	s.start()
	s.eventually(reaches, "the policy that went while no agent ran is gone")
	s.eventually(func() bool { return s.report().Status.PolicyCount == 0 }, "and isn't reported any more")

	// A report that somebody deletes comes back with the next change.
	require.NoError(t, s.admin.Delete(t.Context(), s.report()))
	np = np.DeepCopy()
	np.ResourceVersion, np.UID = "", ""
	require.NoError(t, s.admin.Create(t.Context(), np))
	s.eventually(func() bool { return s.enforces(np) }, "the report is made anew")

	// A pod that ended frees its address: nothing of it is left for the next owner.
	pod.Status.Phase = corev1.PodSucceeded
	require.NoError(t, s.admin.Status().Update(t.Context(), pod))
	s.eventually(reaches, "the address of a pod that ended is open")
	s.stop()
}

// A hook that somebody deletes comes back, and an event of the Node tells of it.
func TestAgentRepairsItsHook(t *testing.T) {
	s := newAgentScene(t)
	s.start()
	hooked := func() bool {
		table := iptables.Table{}
		require.NoError(t, s.node.Do(func() (err error) {
			runner, err := iptables.NewRunner(iptables.NFT, 4, "MOAT-")
			if err == nil {
				table, err = runner.Read(context.Background())
			}
			return err
		}))
		return len(table.Hooks["FORWARD"]) == 1
	}
	s.eventually(hooked, "the agent hooks itself in")
	// What others do while the first sync still runs is put right and isn't told.
	s.eventually(func() bool { return isSynced(s.report()) }, "the first sync ends")
	runIn(t, s.node.Host, "iptables-nft", "-t", "mangle", "-D", "FORWARD", "1")
	s.eventually(func() bool {
		var list eventsv1.EventList
		require.NoError(t, s.admin.List(t.Context(), &list))
		return slices.ContainsFunc(list.Items, func(e eventsv1.Event) bool {
			return e.Reason == notify.EventRepaired && e.Regarding.Kind == "Node" && e.Regarding.Name == s.nodeName &&
				strings.Contains(e.Note, "0 chains, 1 hooks, 0 sets")
		})
	}, "the event of the Node")
	s.eventually(hooked, "the agent hooks itself in again")
	s.stop()
}

// An agent that can't see the cluster says so and leaves the kernel alone.
func TestAgentWithoutAPIServer(t *testing.T) {
	s := newAgentScene(t)
	config := apiServer.Agent(t, s.nodeName)
	config.Host = "https://127.0.0.1:1"
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	agent, err := newAgent(ctx, s.manager(config), Options{NodeName: s.nodeName, Backend: iptables.NFT, Words: s.words, Policies: s.policies})
	require.NoError(t, err)
	ended := make(chan error)
	go func() { ended <- s.node.Do(func() error { return agent.Start(ctx) }) }()
	time.Sleep(200 * time.Millisecond)
	answer := httptest.NewRecorder()
	agent.health.Handler(health.Holder{}).ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	require.Equal(t, http.StatusServiceUnavailable, answer.Code)
	require.Equal(t, "waiting for the API server to list pods, namespaces, networkpolicies, nodes\n", answer.Body.String())
	require.NotContains(t, runIn(t, s.node.Host, "iptables-nft-save", "-t", "mangle"), "MOAT-", "nothing is written before the caches are synced")
	cancel()
	require.NoError(t, <-ended)
}
