package dataplane

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/selector"
)

func podObject(name, node string, addrs ...string) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	pod.Spec.NodeName = node
	for _, addr := range addrs {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: addr})
	}
	return pod
}

// denyAll closes every pod of the namespace default.
func denyAll(name string, generation int64) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: name, UID: types.UID("uid-" + name), Generation: generation,
	}}
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	return np
}

func TestRevisionGrowsWithWhatRulesDependOn(t *testing.T) {
	m := newModel("node-1")
	for _, step := range []struct {
		name  string
		do    func()
		grows bool
	}{
		{"a local pod comes", func() { m.setPod(podObject("a", "node-1", "10.0.0.1")) }, true},
		{"a remote pod comes", func() { m.setPod(podObject("b", "node-2", "10.0.0.2")) }, false},
		{"a pod isn't scheduled yet", func() { m.setPod(podObject("c", "")) }, false},
		{"the pod is scheduled here", func() { m.setPod(podObject("c", "node-1")) }, true},
		{"a remote pod goes", func() { m.deletePod(podObject("b", "node-2")) }, false},
		{"an unknown pod goes", func() { m.deletePod(podObject("z", "node-1")) }, false},
		{"a local pod goes", func() { m.deletePod(podObject("a", "node-1")) }, true},
		{"a namespace comes", func() { m.setNamespace(&corev1.Namespace{}) }, false},
		{"a namespace goes", func() { m.deleteNamespace(&corev1.Namespace{}) }, false},
		{"a policy comes", func() { m.setPolicy(denyAll("p", 1)) }, true},
		{"a policy goes", func() { m.deletePolicy(denyAll("p", 1)) }, true},
	} {
		before := m.revision
		step.do()
		require.Equal(t, step.grows, m.revision > before, step.name)
		require.Equal(t, step.grows, m.view(before) != nil, step.name)
		require.Nil(t, m.view(m.revision), step.name)
	}
}

func TestEveryChangeSignals(t *testing.T) {
	m := newModel("node-1")
	for _, change := range []func(){
		func() { m.setPod(podObject("b", "node-2", "10.0.0.2")) },
		func() { m.deletePod(podObject("b", "node-2")) },
		func() { m.setNamespace(&corev1.Namespace{}) },
		func() { m.deleteNamespace(&corev1.Namespace{}) },
		func() { m.setPolicy(denyAll("p", 1)) },
		func() { m.deletePolicy(denyAll("p", 1)) },
	} {
		change()
		change() // a second signal waits for nobody
		require.Len(t, m.changed, 1)
		<-m.changed
	}
}

func TestView(t *testing.T) {
	m := newModel("node-1")
	m.setPod(podObject("here", "node-1", "10.0.0.1"))
	m.setPod(podObject("starting", "node-1"))
	m.setPod(podObject("there", "node-2", "10.0.0.2"))
	for _, name := range []string{"c", "a", "b"} {
		m.setPolicy(denyAll(name, 1))
	}
	elsewhere := denyAll("elsewhere", 1)
	elsewhere.Namespace = "other"
	m.setPolicy(elsewhere)

	v := m.view(0)
	require.Equal(t, m.revision, v.revision)
	require.Len(t, v.endpoints, 1)
	require.Equal(t, "here", v.endpoints[0].Pod.Name)
	require.Equal(t, []string{"a", "b", "c"}, names(v.selecting))
	require.Equal(t, []string{"a", "b", "c"}, names(v.endpoints[0].Isolating[policy.Ingress]))
	require.Empty(t, v.endpoints[0].Isolating[policy.Egress])
}

func names(policies []*policy.Policy) []string {
	list := make([]string, len(policies))
	for i, p := range policies {
		list[i] = p.Name
	}
	return list
}

// After a lost watch an informer may report a pod that was deleted and made
// again on another node as one update.
func TestPodMadeAgainElsewhereIsNoLongerLocal(t *testing.T) {
	m := newModel("node-1")
	m.setPolicy(denyAll("p", 1))
	m.setPod(podObject("db-0", "node-1", "10.0.0.1"))
	require.Len(t, m.view(0).endpoints, 1)

	before := m.revision
	m.setPod(podObject("db-0", "node-2", "10.0.1.1"))
	v := m.view(before)
	require.NotNil(t, v, "the rules change")
	require.Empty(t, v.endpoints)
	require.Empty(t, v.selecting)
}

// A pod that has ended owns no address, and closes and selects nothing.
func TestEndedPodLeavesTheView(t *testing.T) {
	m := newModel("node-1")
	m.setPolicy(denyAll("p", 1))
	pod := podObject("job", "node-1", "10.0.0.1")
	m.setPod(pod)
	ended := pod.DeepCopy()
	ended.Status.Phase = corev1.PodSucceeded
	m.setPod(ended)
	v := m.view(0)
	require.Empty(t, v.endpoints)
	require.Empty(t, v.selecting)
}

// The next owner of an address inherits neither the policies nor the peers of a
// pod that is on its way out.
func TestTheHeirOfAnAddressInheritsNothing(t *testing.T) {
	m := newModel("node-1")
	m.setPolicy(denyAll("p", 1))
	m.index.Want(map[string]policy.PeerSet{"leaving": {Pods: policy.PodPeer{Namespace: "default", Pods: labels.Everything()}}})
	m.setPod(podObject("old", "node-1", "10.0.0.1"))
	require.Len(t, m.view(0).endpoints, 1)
	require.Equal(t, []string{"10.0.0.1"}, addresses(m.index, "leaving"))

	old := podObject("old", "node-1", "10.0.0.1")
	old.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	m.setPod(old)
	require.Len(t, m.view(0).endpoints, 1, "it stays enforced")
	require.Equal(t, []string{"10.0.0.1"}, addresses(m.index, "leaving"), "and stays a peer")

	heir := podObject("heir", "node-1", "10.0.0.1")
	heir.Namespace = "other"
	m.setPod(heir)
	require.Empty(t, m.view(0).endpoints)
	require.Empty(t, addresses(m.index, "leaving"))

	m.deletePod(heir)
	require.Len(t, m.view(0).endpoints, 1)
	require.Equal(t, []string{"10.0.0.1"}, addresses(m.index, "leaving"))
	m.deletePod(old)
	require.Empty(t, m.view(0).endpoints)
	require.Empty(t, addresses(m.index, "leaving"))
}

func TestModelFeedsTheIndex(t *testing.T) {
	m := newModel("node-1")
	m.index.Want(map[string]policy.PeerSet{"every": {Pods: policy.EveryPod()}})
	m.setNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	m.setPod(podObject("here", "node-1", "10.0.0.1"))
	m.setPod(podObject("there", "node-2", "10.0.0.2"))
	require.ElementsMatch(t, []string{"10.0.0.1", "10.0.0.2"}, addresses(m.index, "every"))
	m.deletePod(podObject("there", "node-2"))
	require.Equal(t, []string{"10.0.0.1"}, addresses(m.index, "every"))
}

func addresses(index *selector.Index, set string) []string {
	var list []string
	index.Elements(set, func(e policy.Element) { list = append(list, fmt.Sprint(e.Addr)) })
	return list
}

// An informer that missed a deletion hands over the last state that it knows.
func TestHandlerOfMissedDeletion(t *testing.T) {
	m := newModel("node-1")
	handler := handlerOf(m.setPod, m.deletePod)
	pod := podObject("a", "node-1", "10.0.0.1")
	handler.OnAdd(pod, true)
	require.Len(t, m.local, 1)
	handler.OnUpdate(pod, pod)
	require.Len(t, m.local, 1)
	handler.OnDelete(toolscache.DeletedFinalStateUnknown{Key: "default/a", Obj: pod})
	require.Empty(t, m.local)
	handler.OnDelete(toolscache.DeletedFinalStateUnknown{Key: "default/a"})
}
