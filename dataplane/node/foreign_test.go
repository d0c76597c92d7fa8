package node

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// An address of the podCIDRs is foreign while pods of other nodes show it and none of
// this node does. Each step follows the one before.
func TestForeignAddressesFollowTheCluster(t *testing.T) {
	m := New("node-1")
	m.GuardFromNowOn()
	key := func(name string) types.NamespacedName { return types.NamespacedName{Namespace: "default", Name: name} }
	ended := policytest.PodOn("remote", "node-2")
	ended.Subject = false
	leaving := policytest.PodOn("local", "node-1", "10.0.0.7")
	leaving.Terminating = true
	for _, step := range []struct {
		name string
		do   func()
		want []string
	}{
		{"a pod of another node, before the Node is known", func() { m.SetPod(policytest.PodOn("remote", "node-2", "10.0.0.7", "fd00::7")) }, nil},
		{"the Node has podCIDRs", func() { m.SetNode(policytest.NodeWith("10.0.0.0/24")) }, []string{"10.0.0.7"}},
		{"it has one more", func() { m.SetNode(policytest.NodeWith("10.0.0.0/24", "fd00::/64")) }, []string{"10.0.0.7", "fd00::7"}},
		{"a pod of another range", func() { m.SetPod(policytest.PodOn("far", "node-2", "10.0.9.9")) }, []string{"10.0.0.7", "fd00::7"}},
		{"a pod of this node", func() { m.SetPod(policytest.PodOn("here", "node-1", "10.0.0.8")) }, []string{"10.0.0.7", "fd00::7"}},
		{"a second pod elsewhere shows the address", func() { m.SetPod(policytest.PodOn("twin", "node-3", "10.0.0.7")) }, []string{"10.0.0.7", "fd00::7"}},
		{"the first goes", func() { m.DeletePod(key("remote")) }, []string{"10.0.0.7"}},
		{"the runtime starts a pod with it", func() { m.StartSandbox(sandboxOf("s", "new", "10.0.0.7")) }, nil},
		{"that one ends", func() { m.StopSandbox(sandboxOf("s", "new", "10.0.0.7")) }, []string{"10.0.0.7"}},
		{"the API shows one here", func() { m.SetPod(policytest.PodOn("local", "node-1", "10.0.0.7")) }, nil},
		{"which is being deleted", func() { m.SetPod(leaving) }, nil},
		{"and is gone", func() { m.DeletePod(key("local")) }, []string{"10.0.0.7"}},
		{"the other one changes its address", func() { m.SetPod(policytest.PodOn("twin", "node-3", "10.0.0.9")) }, []string{"10.0.0.9"}},
		{"and is one of this node", func() { m.SetPod(policytest.PodOn("twin", "node-1", "10.0.0.9")) }, nil},
		{"a pod elsewhere comes back", func() { m.SetPod(policytest.PodOn("remote", "node-2", "10.0.0.7")) }, []string{"10.0.0.7"}},
		{"it ends", func() { m.SetPod(ended) }, nil},
		{"it runs again", func() { m.SetPod(policytest.PodOn("remote", "node-2", "10.0.0.7")) }, []string{"10.0.0.7"}},
		{"the Node gets other podCIDRs", func() { m.SetNode(policytest.NodeWith("10.0.1.0/24")) }, nil},
	} {
		since := m.View(0)
		before := slices.Sorted(maps.Keys(asText(since.Guard.Foreign)))
		step.do()
		v := m.View(0)
		got := slices.Sorted(maps.Keys(asText(v.Guard.Foreign)))
		require.Equal(t, step.want, got, step.name)
		if !slices.Equal(before, got) {
			require.NotEqual(t, since.Revision, v.Revision, "%s: the rules depend on it", step.name)
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
	m := New("node-1")
	m.GuardFromNowOn()
	m.SetNode(policytest.NodeWith("10.0.0.0/24"))
	before := m.View(0).Revision
	m.SetPod(policytest.PodOn("far", "node-2", "10.0.9.9"))
	m.DeletePod(types.NamespacedName{Namespace: "default", Name: "far"})
	require.Nil(t, m.View(before))
}
