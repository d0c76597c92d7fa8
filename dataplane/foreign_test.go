package dataplane

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/policy"
)

// named is apiPod with a name of its own.
func named(name, node string, addrs ...string) *policy.Pod {
	pod := apiPod(name, node, addrs...)
	pod.Name = name
	return pod
}

func nodeWith(cidrs ...string) *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}, Spec: corev1.NodeSpec{PodCIDRs: cidrs}}
}

// An address of the podCIDRs is foreign while pods of other nodes show it and none of
// this node does. Each step follows the one before.
func TestForeignAddressesFollowTheCluster(t *testing.T) {
	m := newModel("node-1")
	m.guardFromNowOn()
	key := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "default", Name: name} }
	ended := named("remote", "node-2")
	ended.Subject = false
	leaving := named("local", "node-1", "10.0.0.7")
	leaving.Terminating = true
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"a pod of another node, before the Node is known", func() { m.setPod(named("remote", "node-2", "10.0.0.7", "fd00::7")) }, nil},
		{"the Node has podCIDRs", func() { m.setNode(nodeWith("10.0.0.0/24")) }, []string{"10.0.0.7"}},
		{"it has one more", func() { m.setNode(nodeWith("10.0.0.0/24", "fd00::/64")) }, []string{"10.0.0.7", "fd00::7"}},
		{"a pod of another range", func() { m.setPod(named("far", "node-2", "10.0.9.9")) }, []string{"10.0.0.7", "fd00::7"}},
		{"a pod of this node", func() { m.setPod(named("here", "node-1", "10.0.0.8")) }, []string{"10.0.0.7", "fd00::7"}},
		{"a second pod elsewhere shows the address", func() { m.setPod(named("twin", "node-3", "10.0.0.7")) }, []string{"10.0.0.7", "fd00::7"}},
		{"the first goes", func() { m.deletePod(key("remote")) }, []string{"10.0.0.7"}},
		{"the runtime starts a pod with it", func() { m.startSandbox(sandboxOf("s", "new", "10.0.0.7")) }, nil},
		{"that one ends", func() { m.stopSandbox(sandboxOf("s", "new", "10.0.0.7")) }, []string{"10.0.0.7"}},
		{"the API shows one here", func() { m.setPod(named("local", "node-1", "10.0.0.7")) }, nil},
		{"which is being deleted", func() { m.setPod(leaving) }, nil},
		{"and is gone", func() { m.deletePod(key("local")) }, []string{"10.0.0.7"}},
		{"the other one changes its address", func() { m.setPod(named("twin", "node-3", "10.0.0.9")) }, []string{"10.0.0.9"}},
		{"and is one of this node", func() { m.setPod(named("twin", "node-1", "10.0.0.9")) }, nil},
		{"a pod elsewhere comes back", func() { m.setPod(named("remote", "node-2", "10.0.0.7")) }, []string{"10.0.0.7"}},
		{"it ends", func() { m.setPod(ended) }, nil},
		{"it runs again", func() { m.setPod(named("remote", "node-2", "10.0.0.7")) }, []string{"10.0.0.7"}},
		{"the Node gets other podCIDRs", func() { m.setNode(nodeWith("10.0.1.0/24")) }, nil},
	} {
		since := m.view(0)
		before := slices.Sorted(maps.Keys(asText(since.guard.Foreign)))
		step.do()
		v := m.view(0)
		got := slices.Sorted(maps.Keys(asText(v.guard.Foreign)))
		require.Equal(t, step.want, got, step.name)
		if !slices.Equal(before, got) {
			require.NotEqual(t, since.revision, v.revision, "%s: the rules depend on it", step.name)
		}
	}
}

func asText(addrs []netip.Addr) map[string]bool {
	texts := map[string]bool{}
	for _, addr := range addrs {
		texts[addr.String()] = true
	}
	return texts
}

// Pods of other nodes elsewhere, which are nearly all, cost no look at the rules.
func TestPodsOfOtherRangesChangeNoRules(t *testing.T) {
	m := newModel("node-1")
	m.guardFromNowOn()
	m.setNode(nodeWith("10.0.0.0/24"))
	before := m.view(0).revision
	m.setPod(named("far", "node-2", "10.0.9.9"))
	m.deletePod(types.NamespacedName{Namespace: "default", Name: "far"})
	require.Nil(t, m.view(before))
}

// The condition says where the guard spares addresses.
func TestThePodStartConditionNamesSparedAddresses(t *testing.T) {
	s, m := newTestStarts(GuardAuto)
	m.setNode(nodeWith("10.0.0.0/24"))
	s.Connection(nil)
	require.NotContains(t, s.condition().Message, "Pods of other nodes")
	m.setPod(named("remote", "node-2", "10.0.0.7"))
	require.Equal(t, v1alpha1.NodeReasonRuntimeConnected, s.condition().Reason)
	require.Contains(t, s.condition().Message, "Pods of other nodes have addresses of this Node's podCIDRs and pass the guard")
	require.LessOrEqual(t, len(s.condition().Message), maxMessage)
	m.deletePod(types.NamespacedName{Namespace: "default", Name: "remote"})
	require.NotContains(t, s.condition().Message, "Pods of other nodes")
}
