package bench

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// toKernel is how long a simulated agent takes from its watch to its kernel; see
// "the agent's part of a policy change" of make bench.
const toKernel = 30 * time.Millisecond

// startApart is the time between the starts of two agents: a DaemonSet's pods don't
// start all in one moment.
const startApart = 2 * time.Millisecond

// agents are the agents of all nodes: what they report, and with the agents' own
// code when. They share one watch of the policies. What real ones do besides, the
// rules and their own watches, isn't there.
type agents struct {
	size   fleetSize
	nodes  []*agent
	target map[string][]int // the nodes of a namespace and an app

	running sync.WaitGroup
	stop    context.CancelFunc
	writes  atomic.Int64 // of NodeEnforcements
}

// agent is that of one node.
type agent struct {
	writer *report.Writer

	mu       sync.Mutex
	policies map[types.UID]int64
	pods     []string // the digests of its pods, in order
}

// newAgents makes agents that don't report yet.
func newAgents(t testing.TB, s fleetSize, config *rest.Config, pods []placed, nodes map[string]types.UID) *agents {
	t.Helper()
	a := &agents{size: s, target: map[string][]int{}}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &countWrites{next: next, count: &a.writes} })
	config.QPS = -1
	live, err := client.New(config, client.Options{Scheme: apiservertest.NewScheme()})
	require.NoError(t, err)
	cached, err := client.New(config, client.Options{
		Scheme: apiservertest.NewScheme(), Cache: &client.CacheOptions{Reader: nodeReader(nodes)},
	})
	require.NoError(t, err)
	for node := range s.nodes {
		a.nodes = append(a.nodes, &agent{
			writer:   report.NewWriter(cached, live, fleetNode(node), logr.Discard()),
			policies: map[types.UID]int64{},
		})
	}
	for namespace := range s.namespaces {
		for app := wholeNamespace; app < s.appsOf(); app++ {
			a.target[targetKey(namespaceName(namespace), subject{app: app}.labels())] = s.nodesOf(pods, namespace, app)
		}
	}
	return a
}

// seen gives each agent the digests of its pods.
func (a *agents) seen(pods map[int][]string) {
	for node, digests := range pods {
		slices.Sort(digests)
		a.nodes[node].pods = digests
	}
}

func targetKey(namespace string, labels map[string]string) string {
	return namespace + "/" + labels["app"]
}

// watch follows the policies. The first list is what the agents start with.
func (a *agents) watch(t testing.TB, api kubernetes.Interface) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	factory := informers.NewSharedInformerFactory(api, 0)
	_, err := factory.Networking().V1().NetworkPolicies().Informer().AddEventHandler(toolscache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, first bool) {
			if policy := object.(*networkingv1.NetworkPolicy); first {
				a.hold(policy)
			} else {
				time.AfterFunc(toKernel, func() { a.hold(policy) })
			}
		},
		UpdateFunc: func(_, object any) {
			time.AfterFunc(toKernel, func() { a.hold(object.(*networkingv1.NetworkPolicy)) })
		},
	})
	require.NoError(t, err)
	factory.StartWithContext(ctx)
	factory.WaitForCacheSyncWithContext(ctx)
	t.Cleanup(func() {
		cancel()
		a.running.Wait()
	})
	for i, n := range a.nodes {
		n.want()
		a.running.Go(func() {
			select {
			case <-ctx.Done():
			case <-time.After(time.Duration(i) * startApart):
				_ = n.writer.Start(ctx)
			}
		})
	}
}

// hold puts a policy in force on its nodes.
func (a *agents) hold(policy *networkingv1.NetworkPolicy) {
	for _, node := range a.target[targetKey(policy.Namespace, policy.Spec.PodSelector.MatchLabels)] {
		n := a.nodes[node]
		n.mu.Lock()
		n.policies[policy.UID] = max(n.policies[policy.UID], policy.Generation)
		n.mu.Unlock()
		n.want()
	}
}

// want reports as an agent of a healthy node.
func (n *agent) want() {
	n.mu.Lock()
	status := &v1alpha1.NodeEnforcementStatus{Backend: "iptables-nft", PolicyCount: int32(len(n.policies)), Pods: n.pods}
	for _, uid := range slices.Sorted(maps.Keys(n.policies)) {
		status.Policies = append(status.Policies, v1alpha1.EnforcedPolicy{UID: uid, Generation: n.policies[uid]})
	}
	n.mu.Unlock()
	for _, c := range []metav1.Condition{
		{Type: v1alpha1.NodeConditionDataplaneSynced, Status: metav1.ConditionTrue, Reason: v1alpha1.NodeReasonSynced},
		{Type: v1alpha1.NodeConditionDegraded, Status: metav1.ConditionFalse, Reason: v1alpha1.NodeReasonHealthy},
		{Type: v1alpha1.NodeConditionPodStartGuarded, Status: metav1.ConditionTrue, Reason: v1alpha1.NodeReasonRuntimeConnected},
		{Type: v1alpha1.NodeConditionPolicyEngineConflict, Status: metav1.ConditionFalse, Reason: v1alpha1.NodeReasonNoOtherEngine},
	} {
		c.Message = "What an agent says about a healthy node, in a sentence of the usual length"
		status.Conditions = append(status.Conditions, c)
	}
	n.writer.Want(status)
}

// countWrites counts what changes something.
type countWrites struct {
	next  http.RoundTripper
	count *atomic.Int64
}

func (c *countWrites) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.Method != http.MethodGet {
		c.count.Add(1)
	}
	return c.next.RoundTrip(request)
}

// nodeReader is a cache of Nodes: their uids by name.
type nodeReader map[string]types.UID

func (r nodeReader) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	node, ok := object.(*corev1.Node)
	uid, known := r[key.Name]
	if !ok || !known {
		return fmt.Errorf("no %T %s is cached", object, key)
	}
	node.Name, node.UID = key.Name, uid
	return nil
}

func (r nodeReader) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return fmt.Errorf("nobody lists from this cache")
}

// operatorWrites are the API server's counts of what the operator alone writes, by
// resource. Leases, by which operators elect a leader, are left out.
func operatorWrites(metrics map[string]float64) map[string]float64 {
	counts := map[string]float64{}
	for series, value := range metrics {
		request, ok := parseRequests(series)
		if !ok {
			continue
		}
		switch {
		case request["resource"] == "networkpolicies" && request["verb"] == "APPLY",
			request["resource"] == "appisolations" && request["subresource"] == "status",
			request["resource"] == "policyenforcements",
			request["resource"] == "events":
			counts[request["resource"]] += value
		}
	}
	return counts
}

// parseRequests returns the labels of a series of writes.
func parseRequests(series string) (labels map[string]string, ok bool) {
	text, found := strings.CutPrefix(series, "apiserver_request_total{")
	if !found {
		return nil, false
	}
	labels = map[string]string{}
	for pair := range strings.SplitSeq(strings.TrimSuffix(text, "}"), ",") {
		key, value, _ := strings.Cut(pair, "=")
		labels[key] = strings.Trim(value, `"`)
	}
	return labels, slices.Contains([]string{"POST", "PUT", "PATCH", "APPLY", "DELETE"}, labels["verb"])
}

// fail has a node report that a policy can't be put in force there.
func (a *agents) fail(node int, uid types.UID) {
	status := a.nodes[node].writer.Wanted().DeepCopy()
	status.Failures = []v1alpha1.PolicyFailure{{UID: uid, Reason: v1alpha1.NodeReasonRestoreFailed, Message: "line 7 failed"}}
	a.nodes[node].writer.Want(status)
}
