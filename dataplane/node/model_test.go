package node

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/moat-dev/moat/dataplane/node/modeltest"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/selector"
	"github.com/moat-dev/moat/dataplane/watch"
)

func TestRevisionGrowsWithWhatRulesDependOn(t *testing.T) {
	m := New("node-1")
	for _, step := range []struct {
		name  string
		do    func()
		grows bool
	}{
		{"a local pod comes", func() { modeltest.See(m, policytest.PodObject("a", "node-1", "10.0.0.1")) }, true},
		{"a remote pod comes", func() { modeltest.See(m, policytest.PodObject("b", "node-2", "10.0.0.2")) }, false},
		{"a pod isn't scheduled yet", func() { modeltest.See(m, policytest.PodObject("c", "")) }, false},
		{"the pod is scheduled here", func() { modeltest.See(m, policytest.PodObject("c", "node-1")) }, true},
		{"a remote pod goes", func() { modeltest.Lose(m, policytest.PodObject("b", "node-2")) }, false},
		{"an unknown pod goes", func() { modeltest.Lose(m, policytest.PodObject("z", "node-1")) }, false},
		{"a local pod goes", func() { modeltest.Lose(m, policytest.PodObject("a", "node-1")) }, true},
		{"a namespace comes", func() { modeltest.See(m, &corev1.Namespace{}) }, false},
		{"a namespace goes", func() { modeltest.Lose(m, &corev1.Namespace{}) }, false},
		{"a policy comes", func() { modeltest.See(m, policytest.DenyAll("p", 1)) }, true},
		{"it has a new generation", func() { modeltest.See(m, policytest.DenyAll("p", 2)) }, true},
		{"it selects nothing here any more", func() { modeltest.See(m, selecting(policytest.DenyAll("p", 3), "role", "db")) }, true},
		{"it still selects nothing here", func() { modeltest.See(m, selecting(policytest.DenyAll("p", 4), "role", "web")) }, false},
		{"it goes", func() { modeltest.Lose(m, policytest.DenyAll("p", 4)) }, false},
		{"a policy comes again", func() { modeltest.See(m, policytest.DenyAll("p", 1)) }, true},
		{"a policy of another namespace comes", func() { modeltest.See(m, elsewhere(policytest.DenyAll("p", 1))) }, false},
		{"the policy of another namespace goes", func() { modeltest.Lose(m, elsewhere(policytest.DenyAll("p", 1))) }, false},
		{"the status of a local pod changes", func() { modeltest.See(m, policytest.PodObject("c", "node-1")) }, false},
		{"the local pod gets its address", func() { modeltest.See(m, policytest.PodObject("c", "node-1", "10.0.0.3")) }, true},
		{"a policy goes", func() { modeltest.Lose(m, policytest.DenyAll("p", 1)) }, true},
		{"a pod of the node's own network comes", func() { modeltest.See(m, hostNetwork(policytest.PodObject("h", "node-1", "192.0.2.1"))) }, false},
		{"it goes", func() { modeltest.Lose(m, policytest.PodObject("h", "node-1")) }, false},
	} {
		before := m.revision
		step.do()
		require.Equal(t, step.grows, m.revision > before, step.name)
		require.Equal(t, step.grows, m.View(before) != nil, step.name)
		require.Nil(t, m.View(m.revision), step.name)
	}
}

func selecting(np *networkingv1.NetworkPolicy, key, value string) *networkingv1.NetworkPolicy {
	np.Spec.PodSelector.MatchLabels = map[string]string{key: value}
	return np
}

func elsewhere(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	np.Namespace = "elsewhere"
	return np
}

func hostNetwork(pod *corev1.Pod) *corev1.Pod {
	pod.Spec.HostNetwork = true
	return pod
}

// What changes neither the rules nor a set of this node doesn't wake the agent.
func TestWhatConcernsTheNodeSignals(t *testing.T) {
	m := New("node-1")
	modeltest.See(m, policytest.PodObject("a", "node-1", "10.0.0.1"))
	m.index.Want(map[string]policy.PeerSet{"default": {Pods: policy.PodPeer{Namespace: "default", Pods: labels.Everything()}},
		"blue": {Pods: policy.PodPeer{Namespaces: labels.SelectorFromSet(labels.Set{"team": "blue"}), Pods: labels.Everything()}}})
	m.index.Changes(func(string, policy.Element, bool) {})
	<-m.Changed
	m.TakeEvent()
	other := policytest.PodObject("b", "node-2", "10.0.1.2")
	other.Namespace = "other"
	team := func(name string) *corev1.Namespace {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "other", Labels: map[string]string{"team": name}}}
	}
	for _, step := range []struct {
		name    string
		change  func()
		signals bool
	}{
		{"a remote pod enters a set", func() { modeltest.See(m, policytest.PodObject("b", "node-2", "10.0.0.2")) }, true},
		{"nothing changes", func() { modeltest.See(m, policytest.PodObject("b", "node-2", "10.0.0.2")) }, false},
		{"it leaves", func() { modeltest.Lose(m, policytest.PodObject("b", "node-2", "10.0.0.2")) }, true},
		{"one comes that is in no set", func() { modeltest.See(m, other) }, false},
		{"its namespace gets labels that nobody asks for", func() { modeltest.See(m, team("green")) }, false},
		{"its namespace enters a set", func() { modeltest.See(m, team("blue")) }, true},
		{"its namespace goes", func() { modeltest.Lose(m, team("blue")) }, true},
		{"a policy for no pod of this node", func() { modeltest.See(m, elsewhere(policytest.DenyAll("p", 1))) }, false},
		{"a policy", func() { modeltest.See(m, policytest.DenyAll("p", 1)) }, true},
		{"the policy goes", func() { modeltest.Lose(m, policytest.DenyAll("p", 1)) }, true},
	} {
		step.change()
		step.change() // a second signal waits for nobody
		require.Equal(t, step.signals, len(m.Changed) == 1, step.name)
		require.Equal(t, step.signals, !m.TakeEvent().IsZero(), step.name)
		if step.signals {
			<-m.Changed
		}
		m.index.Changes(func(string, policy.Element, bool) {})
	}
}

func TestView(t *testing.T) {
	m := New("node-1")
	modeltest.See(m, policytest.PodObject("here", "node-1", "10.0.0.1"))
	modeltest.See(m, policytest.PodObject("starting", "node-1"))
	modeltest.See(m, policytest.PodObject("there", "node-2", "10.0.0.2"))
	for _, name := range []string{"c", "a", "b"} {
		modeltest.See(m, policytest.DenyAll(name, 1))
	}
	modeltest.See(m, elsewhere(policytest.DenyAll("elsewhere", 1)))

	v := m.View(0)
	require.Equal(t, m.revision, v.Revision)
	require.Len(t, v.Endpoints, 1)
	require.Equal(t, "here", v.Endpoints[0].Pod.Name)
	require.Equal(t, []string{"a", "b", "c"}, names(v.Selecting))
	require.Equal(t, []string{"a", "b", "c"}, names(v.Endpoints[0].Isolating[policy.Ingress]))
	require.Empty(t, v.Endpoints[0].Isolating[policy.Egress])
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
	m := New("node-1")
	modeltest.See(m, policytest.DenyAll("p", 1))
	modeltest.See(m, policytest.PodObject("db-0", "node-1", "10.0.0.1"))
	require.Len(t, m.View(0).Endpoints, 1)

	before := m.revision
	modeltest.See(m, policytest.PodObject("db-0", "node-2", "10.0.1.1"))
	v := m.View(before)
	require.NotNil(t, v, "the rules change")
	require.Empty(t, v.Endpoints)
	require.Empty(t, v.Selecting)
}

// A pod that has ended owns no address, and closes and selects nothing.
func TestEndedPodLeavesTheView(t *testing.T) {
	m := New("node-1")
	modeltest.See(m, policytest.DenyAll("p", 1))
	pod := policytest.PodObject("job", "node-1", "10.0.0.1")
	modeltest.See(m, pod)
	ended := pod.DeepCopy()
	ended.Status.Phase = corev1.PodSucceeded
	modeltest.See(m, ended)
	v := m.View(0)
	require.Empty(t, v.Endpoints)
	require.Empty(t, v.Selecting)
}

// The next owner of an address isn't a peer in place of a pod that is on its way out. That
// pod's isolation ends with it and not before.
func TestTheHeirOfAnAddressIsNoPeerForIt(t *testing.T) {
	m := New("node-1")
	modeltest.See(m, policytest.DenyAll("p", 1))
	m.index.Want(map[string]policy.PeerSet{"leaving": {Pods: policy.PodPeer{Namespace: "default", Pods: labels.Everything()}}})
	modeltest.See(m, policytest.PodObject("old", "node-1", "10.0.0.1"))
	require.Len(t, m.View(0).Endpoints, 1)
	require.Equal(t, []string{"10.0.0.1"}, addresses(m.index, "leaving"))

	old := policytest.PodObject("old", "node-1", "10.0.0.1")
	old.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	modeltest.See(m, old)
	require.Len(t, m.View(0).Endpoints, 1, "it stays enforced")
	require.Equal(t, []string{"10.0.0.1"}, addresses(m.index, "leaving"), "and stays a peer")

	newOwner := policytest.PodObject("next", "node-1", "10.0.0.1")
	newOwner.Namespace = "other"
	modeltest.See(m, newOwner)
	require.Len(t, m.View(0).Endpoints, 1, "no other pod's status ends it")
	require.Empty(t, addresses(m.index, "leaving"))

	modeltest.Lose(m, newOwner)
	require.Len(t, m.View(0).Endpoints, 1)
	require.Equal(t, []string{"10.0.0.1"}, addresses(m.index, "leaving"))
	modeltest.Lose(m, old)
	require.Empty(t, m.View(0).Endpoints)
	require.Empty(t, addresses(m.index, "leaving"))
}

func TestModelFeedsTheIndex(t *testing.T) {
	m := New("node-1")
	m.index.Want(map[string]policy.PeerSet{"every": {Pods: policy.EveryPod()}})
	modeltest.See(m, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	modeltest.See(m, policytest.PodObject("here", "node-1", "10.0.0.1"))
	modeltest.See(m, policytest.PodObject("there", "node-2", "10.0.0.2"))
	require.ElementsMatch(t, []string{"10.0.0.1", "10.0.0.2"}, addresses(m.index, "every"))
	modeltest.Lose(m, policytest.PodObject("there", "node-2"))
	require.Equal(t, []string{"10.0.0.1"}, addresses(m.index, "every"))
}

func addresses(index *selector.Index, set string) []string {
	var list []string
	index.Elements(set, func(e policy.Element) { list = append(list, fmt.Sprint(e.Addr)) })
	return list
}

// An informer that missed a deletion hands over the last state that it knows, if any.
func TestHandlerOfMissedDeletion(t *testing.T) {
	m := New("node-1")
	handler := watch.HandlerOf(m.SetPod, m.DeletePod)
	pod := &watch.Kept[*policy.Pod]{Value: policy.ParsePod(policytest.PodObject("a", "node-1", "10.0.0.1"))}
	handler.OnAdd(pod, true)
	require.Len(t, m.local, 1)
	handler.OnUpdate(pod, pod)
	require.Len(t, m.local, 1)
	handler.OnDelete(toolscache.DeletedFinalStateUnknown{Key: "default/a", Obj: pod})
	require.Empty(t, m.local)
	handler.OnAdd(pod, false)
	handler.OnDelete(pod)
	require.Empty(t, m.local)
	handler.OnAdd(pod, false)
	handler.OnDelete(toolscache.DeletedFinalStateUnknown{Key: "default/a"})
	require.Empty(t, m.local)
}
