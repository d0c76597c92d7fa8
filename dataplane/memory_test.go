package dataplane

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/policystore"
	"github.com/moat-dev/moat/dataplane/selector"
	"github.com/moat-dev/moat/dataplane/watch"
)

// Bounds of what one object may take in the informer's store, the model and the index
// together.
const (
	mostPerPod    = 1500
	mostPerPolicy = 2000
)

// watched is what informers and their handlers do, without an API server.
type watched struct {
	indexer toolscache.Indexer
	keep    toolscache.TransformFunc
	handler toolscache.ResourceEventHandler
}

func newWatched(object client.Object, handler toolscache.ResourceEventHandler, interner *policy.Interner) *watched {
	s := &watched{handler: handler}
	s.indexer = toolscache.NewIndexer(toolscache.MetaNamespaceKeyFunc, toolscache.Indexers{toolscache.NamespaceIndex: toolscache.MetaNamespaceIndexFunc})
	for of, by := range watch.CacheOptions("node-1", interner, policystore.New(1<<20)).ByObject {
		if fmt.Sprintf("%T", of) == fmt.Sprintf("%T", object) {
			s.keep = by.Transform
		}
	}
	return s
}

func (s *watched) add(t *testing.T, object client.Object) {
	kept, err := s.keep(object)
	require.NoError(t, err)
	require.NoError(t, s.indexer.Add(kept))
	s.handler.OnAdd(kept, true)
}

// heap is what the process keeps. A pool is empty after two collections.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// TestMemory says what a pod and a policy take, in a cluster like that of the
// benchmark: 100 pods and 20 policies in each namespace, 100 pods on this node.
func TestMemory(t *testing.T) {
	const namespaces = 100
	m, interner := node.New("node-0"), policy.NewInterner()
	pods := newWatched(&watch.SlimPod{}, watch.HandlerOf(m.SetPod, m.DeletePod), interner)
	policies := newWatched(&networkingv1.NetworkPolicy{}, watch.HandlerOf(m.Hold, m.DeletePolicy), interner)
	base := heap()
	for n := range namespaces {
		modeltest.See(m, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("namespace-%d", n), Labels: map[string]string{"team": fmt.Sprint(n % 10)}}})
		for i := range 100 {
			pods.add(t, memoryPod(n, i))
		}
	}
	withPods := heap()
	for n := range namespaces {
		for i := range 20 {
			policies.add(t, memoryPolicy(t, n, i))
		}
	}
	withPolicies := heap()
	perPod, perPolicy := int(withPods-base)/(namespaces*100), int(withPolicies-withPods)/(namespaces*20)
	outputs := compileAll(&view{View: *m.View(0)})
	m.Members(func(index *selector.Index) {
		index.Want(wantedSets(outputs))
		index.Changes(func(string, policy.Element, bool) {})
	})
	t.Logf("%d bytes a pod, %d bytes a policy, and %d KB for the %d sets of this node", perPod, perPolicy, (heap()-withPolicies)>>10, len(declaredSets(outputs)))
	require.LessOrEqual(t, perPod, mostPerPod)
	require.LessOrEqual(t, perPolicy, mostPerPolicy)
	runtime.KeepAlive(pods)
	runtime.KeepAlive(policies)
}

func memoryPod(n, i int) *corev1.Pod {
	pod := policytest.PodObject(fmt.Sprintf("app-%d-6d4cf56db6-%05d", i/10, i), fmt.Sprintf("node-%d", n), fmt.Sprintf("10.%d.%d.%d", n/256, n%256, i), fmt.Sprintf("fd00::%x:%x", n, i))
	pod.Namespace, pod.ResourceVersion = fmt.Sprintf("namespace-%d", n), fmt.Sprint(1_000_000+n*100+i)
	pod.UID = types.UID(fmt.Sprintf("%08d-0000-0000-0000-%012d", n, i))
	pod.Labels = map[string]string{"app": fmt.Sprintf("app-%d", i/10), "tier": fmt.Sprintf("tier-%d", i%3), "pod-template-hash": "6d4cf56db6"}
	pod.Spec.Containers = []corev1.Container{{Name: "main", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}}
	return pod
}

func memoryPolicy(t *testing.T, n, i int) *networkingv1.NetworkPolicy {
	np := policytest.DenyAll(fmt.Sprintf("policy-%d", i), 1)
	np.Namespace, np.UID = fmt.Sprintf("namespace-%d", n), types.UID(fmt.Sprintf("%08d-0000-0000-0001-%012d", n, i))
	text := fmt.Sprintf(`{podSelector: {matchLabels: {app: app-%d}}, policyTypes: [Ingress, Egress],
		ingress: [{from: [{namespaceSelector: {matchLabels: {team: "%d"}}, podSelector: {matchLabels: {app: app-%d}}}], ports: [{port: 8080}]}],
		egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.%d.0.0/16]}}, {podSelector: {}}], ports: [{port: http}, {port: 53, protocol: UDP}]}]}`, i%10, i%10, (i+1)%10, i)
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &np.Spec))
	return np
}
