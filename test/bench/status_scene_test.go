package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/cluster"
)

// fleet is an API server with the objects of many nodes, their agents, and the
// operator as it is shipped.
type fleet struct {
	size     fleetSize
	flags    []string // of the operator
	cluster  *cluster.Cluster
	api      kubernetes.Interface
	placed   []placed
	agents   *agents
	proofs   *proofs
	operator *cluster.Operator
	port     int // of the last change
}

// fillWithin bounds how long the operator takes for all policies at first.
const fillWithin = 10 * time.Minute

// newFleet makes the cluster. Nobody works on it yet.
func newFleet(t testing.TB, s fleetSize, flags []string) *fleet {
	t.Helper()
	f := &fleet{size: s, flags: flags, placed: s.placement()}
	during("starting etcd and the API server", nil, func() {
		// With priority and fairness: it is what keeps 5,000 agents from starving the operator.
		f.cluster = cluster.New(t, cluster.Options{Primary: ruleset.IPv4, EtcdFlags: roomy})
	})
	f.api = newClientset(t, f.cluster.Config(t))
	nodes, listed := f.load(t)
	f.agents = newAgents(t, s, f.cluster.AgentConfig(t), f.placed, nodes)
	f.agents.seen(listed)
	f.proofs = watchProofs(t, f.cluster.Config(t))
	return f
}

// load makes all objects, and returns the uids of the nodes, and by node the digests of
// its pods.
func (f *fleet) load(t testing.TB) (map[string]types.UID, map[int][]string) {
	t.Helper()
	s := f.size
	var mu sync.Mutex
	nodes, listed := map[string]types.UID{}, map[int][]string{}
	var done atomic.Int64
	total := s.namespaces*s.policies + 2*s.nodes + len(f.placed)
	detail := func() string { return fmt.Sprintf("%d of %d objects", done.Load(), total) }
	during("filling the API server", detail, func() {
		parallel(t, s.namespaces, func(ctx context.Context, i int) error { return f.loadNamespace(ctx, i, &done) })
		parallel(t, s.nodes, func(ctx context.Context, i int) error {
			uid, err := f.loadNode(ctx, i)
			done.Add(2)
			mu.Lock()
			defer mu.Unlock()
			nodes[fleetNode(i)] = uid
			return err
		})
		parallel(t, len(f.placed), func(ctx context.Context, i int) error {
			defer done.Add(1)
			pod := s.pod(i, f.placed[i])
			stored, err := f.api.CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			listed[f.placed[i].node] = append(listed[f.placed[i].node], v1alpha1.PodDigest(stored.UID, stored.Labels))
			return nil
		})
	})
	return nodes, listed
}

func (f *fleet) loadNamespace(ctx context.Context, i int, done *atomic.Int64) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespaceName(i), Labels: teamLabels(i)}}
	if err := f.cluster.Client.Create(ctx, namespace); err != nil {
		return err
	}
	for _, s := range f.size.subjects(i) {
		var object client.Object = s.networkPolicy()
		if s.kind == generated {
			object = s.appIsolation()
		}
		if err := f.cluster.Client.Create(ctx, object); err != nil {
			return err
		}
		done.Add(1)
	}
	return nil
}

// loadNode makes a node and the pod of its agent.
func (f *fleet) loadNode(ctx context.Context, i int) (types.UID, error) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fleetNode(i), Labels: map[string]string{corev1.LabelHostname: fleetNode(i)}}}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("172.18.%d.%d", i/256, i%256)}}
	stored, err := f.api.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return "", err
	}
	pod := cluster.NewAgentPod(node.Name)
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	return stored.UID, runPod(ctx, f.api, pod)
}

// change edits a policy and returns its new generation.
func (f *fleet) change(t testing.TB, s subject) (generation int64) {
	t.Helper()
	f.port++
	port := []map[string]any{{"port": 10000 + f.port%50000, "protocol": "TCP"}}
	var object client.Object = s.networkPolicy()
	rule := map[string]any{"ports": port}
	if s.kind == generated {
		object = s.appIsolation()
		rule = map[string]any{"name": "clients", "from": []map[string]any{{"entity": "SameNamespace"}}, "ports": port}
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"ingress": []map[string]any{rule}}})
	require.NoError(t, err)
	require.NoError(t, f.cluster.Client.Patch(t.Context(), object, client.RawPatch(types.MergePatchType, patch)))
	return object.GetGeneration()
}

// start has the operator make all policies, then the agents report, and returns how
// long it took from the operator's start until the last policy was proven.
func (f *fleet) start(t testing.TB) time.Duration {
	t.Helper()
	begin, total := time.Now(), f.size.namespaces*f.size.policies
	f.operator = f.cluster.StartOperator(t, f.flags...)
	counts := func() string {
		return fmt.Sprintf("%d of %d policies are proven, %d reports written", f.proofs.count(), total, f.agents.writes.Load())
	}
	during("the operator's first round", counts, func() {
		f.awaitPolicies(t, total)
		f.agents.watch(t, f.api)
		require.Eventually(t, func() bool { return f.proofs.count() == total }, fillWithin, 50*time.Millisecond, "%s", counter(counts))
	})
	return time.Since(begin)
}

// counter is a text that is made when it is printed.
type counter func() string

func (c counter) String() string { return c() }

// awaitPolicies waits until the AppIsolations have their policies.
func (f *fleet) awaitPolicies(t testing.TB, total int) {
	t.Helper()
	require.Eventually(t, func() bool {
		list, err := f.api.NetworkingV1().NetworkPolicies("").List(t.Context(), metav1.ListOptions{ResourceVersion: "0"})
		return err == nil && len(list.Items) == total
	}, fillWithin, time.Second, "the operator doesn't make all policies; its log is %s", f.operator.Log)
}

// restart starts the operator anew and returns how long it took to be ready.
func (f *fleet) restart(t testing.TB) time.Duration {
	t.Helper()
	f.operator.Stop(t)
	begin := time.Now()
	f.operator = f.cluster.StartOperator(t, f.flags...)
	return time.Since(begin)
}

// await waits until a generation is proven and returns since when it is.
func (f *fleet) await(t testing.TB, s subject, generation int64) time.Time {
	t.Helper()
	var found proof
	require.Eventually(t, func() bool {
		found = f.proofs.last(s)
		return found.generation >= generation || !f.operator.Running()
	}, changeWithinStatus, 5*time.Millisecond, "generation %d of %s isn't enforced", generation, s.proofKey())
	require.True(t, f.operator.Running(), "the operator ended; its log is %s", f.operator.Log)
	return found.at
}
