package node

import (
	"maps"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// What runs without its pod is closed until the runtime says that it has ended, or hands
// its address out again. Each step follows the one before.
func TestOrphansFollowTheRuntime(t *testing.T) {
	key := types.NamespacedName{Namespace: "default", Name: "web"}
	m := New("node-1")
	static := sandboxOf("static", "m", "10.0.0.9")
	static.Static = true
	for _, step := range []struct {
		name   string
		do     func()
		closed []string
	}{
		{"the runtime has a pod", func() { m.ReplaceSandboxes([]podstart.Sandbox{sandboxOf("s1", "a", "10.0.0.1")}) }, nil},
		{"which the API shows", func() { m.SetPod(policytest.APIPod("a", "node-1", "10.0.0.1")) }, nil},
		{"and has no more", func() { m.DeletePod(key) }, []string{"10.0.0.1"}},
		{"a pod of that name comes", func() { m.SetPod(policytest.APIPod("b", "node-1")) }, []string{"10.0.0.1"}},
		{"it starts", func() { m.StartSandbox(sandboxOf("s2", "b", "10.0.0.2")) }, []string{"10.0.0.1"}},
		{"the runtime is connected again", func() {
			m.ReplaceSandboxes([]podstart.Sandbox{sandboxOf("s1", "a", "10.0.0.1"), sandboxOf("s2", "b", "10.0.0.2")})
		}, []string{"10.0.0.1"}},
		{"the first ends", func() { m.StopSandbox(sandboxOf("s1", "a", "10.0.0.1")) }, nil},
		{"the API has a third one instead", func() { m.SetPod(policytest.APIPod("c", "node-1", "10.0.0.3")) }, []string{"10.0.0.2"}},
		{"its address goes to another pod", func() { m.StartSandbox(sandboxOf("s3", "c", "10.0.0.2")) }, nil},
		{"the API loses that too", func() { m.DeletePod(key) }, []string{"10.0.0.2"}},
		{"and has it again", func() { m.SetPod(policytest.APIPod("c", "node-1", "10.0.0.2")) }, nil},
		{"it is made again on another node", func() { m.SetPod(policytest.APIPod("d", "node-2", "10.0.0.7")) }, []string{"10.0.0.2"}},
		{"the runtime runs nothing", func() { m.ReplaceSandboxes(nil) }, nil},
		{"a static pod runs", func() { m.StartSandbox(static) }, nil},
		{"the API shows it", func() { m.SetPod(policytest.APIPod("m", "node-1", "10.0.0.9")) }, nil},
		{"somebody deletes it in the API", func() { m.DeletePod(key) }, nil},
	} {
		before, view := m.revision, m.View(0)
		step.do()
		now := m.View(0)
		require.Equal(t, step.closed, closedIn(now), step.name)
		if !slices.Equal(closedIn(view), step.closed) {
			require.Greater(t, m.revision, before, step.name)
		}
	}
	require.Equal(t, []types.NamespacedName{key}, slices.Collect(maps.Keys(m.local)), "the static pod is enforced by the runtime's word")
}

// Of two sandboxes of one name, as after a deletion by force, the one is enforced whose pod
// the API shows, in whatever order the runtime lists them and whenever the API shows it.
func TestTheOrphanIsTheOneThatTheAPILost(t *testing.T) {
	key := types.NamespacedName{Namespace: "default", Name: "web"}
	old, newOwner := sandboxOf("s1", "a", "10.0.0.1"), sandboxOf("s2", "b", "10.0.0.2")
	requireHeir := func(m *Model) {
		t.Helper()
		require.Equal(t, []string{"10.0.0.1"}, closedIn(m.View(0)))
		require.Equal(t, newOwner.Addrs, m.local[key].Addrs)
	}
	for _, running := range [][]podstart.Sandbox{{old, newOwner}, {newOwner, old}} {
		m := New("node-1")
		m.SetPod(policytest.APIPod("b", "node-1"))
		m.ReplaceSandboxes(running)
		requireHeir(m)

		m = New("node-1")
		m.ReplaceSandboxes(running)
		m.SetPod(policytest.APIPod("b", "node-1"))
		requireHeir(m)
	}
}

// closedIn returns the addresses of orphans.
func closedIn(v *View) []string {
	var closed []string
	for _, endpoint := range v.Endpoints[len(v.Endpoints)-v.Gone:] {
		for _, addr := range endpoint.Pod.Addrs {
			closed = append(closed, addr.String())
		}
	}
	return closed
}

// Where no runtime tells, the network is asked about what the API has no more, and about
// the orphans of a runtime that doesn't answer. One link is one pod's.
func TestOrphansFollowTheNetwork(t *testing.T) {
	one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	o := newOrphans()
	o.keep(sandboxOf("s", "a", "10.0.0.1"))
	o.lost()
	o.ask([]netip.Addr{two})
	require.Empty(t, o.running)
	require.ElementsMatch(t, []netip.Addr{one, two}, o.unsure())
	o.revise(one, 7)
	o.revise(two, 0)
	require.Equal(t, map[netip.Addr]int{one: 7}, o.routed, "the network has no route to the second")
	require.Equal(t, []netip.Addr{one}, o.unsure())
	revision := o.revision
	o.revise(one, 7)
	require.Equal(t, revision, o.revision)
	o.revise(one, 8)
	require.Empty(t, o.routed, "another pod's link")
	require.Greater(t, o.revision, revision)

	m := New("node-1")
	ended := policytest.PodOn("ended", "node-1")
	ended.Subject = false
	for _, pod := range []*policy.Pod{policytest.PodOn("here", "node-1", "10.0.0.1"), policytest.PodOn("far", "node-2", "10.0.0.2"), ended} {
		m.SetPod(pod)
		m.DeletePod(pod.Key())
	}
	require.Equal(t, []netip.Addr{one}, m.sandboxes.orphans.unsure())
}
