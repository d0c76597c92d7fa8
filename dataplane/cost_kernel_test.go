package dataplane

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/node"
)

// cost is what a change takes in the kernel.
type cost struct{ restores, requests float64 }

func (s *scene) cost(change func()) cost {
	s.t.Helper()
	change()
	before := metricstest.Scrape(s.t, s.enforcer.metrics)
	s.sync()
	after := metricstest.Scrape(s.t, s.enforcer.metrics)
	of := func(series string) float64 { return after[series] - before[series] }
	return cost{of("iptables_restores_total success"), of("ipset_requests_total")}
}

// settle syncs until no set is left that was still in use.
func (s *scene) settle() {
	s.t.Helper()
	s.sync()
	require.Eventually(s.t, func() bool { return s.enforcer.trusted || s.trySync() != nil }, 5*time.Second, 10*time.Millisecond)
}

// What a change costs depends on the change and not on the size of the cluster.
func TestAChangeCostsTheSameInALargeCluster(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		costs := map[string][]cost{}
		for _, pods := range []int{200, 20_000} {
			s := walkThroughScene(t, backend)
			s.label("test-np", map[string]string{"role": "db"})
			s.crowd(map[string]string{"role": "crowd"}, 0, pods)
			s.apply(admitsFrontends)
			s.settle()
			note := func(name string, change func()) { costs[name] = append(costs[name], s.cost(change)) }
			note("a remote pod's label", func() { s.label("busybox", map[string]string{"role": "frontend"}) })
			s.requirePing(true, "busybox", "test-np")
			note("its label again", func() { s.label("busybox", nil) })
			s.requirePing(false, "busybox", "test-np")
			note("a label that nobody asks for", func() { s.label("busybox", map[string]string{"other": "label"}) })
			note("a policy", func() { s.apply(admitsOthers) })
			s.requirePing(true, "busybox", "test-np")
			note("the policy goes", func() { s.remove("admits-others") })
			s.requirePing(false, "busybox", "test-np")
		}
		for name, of := range costs {
			require.Equal(t, of[0], of[1], "%s: with 200 pods and with 20,000", name)
		}
		require.Equal(t, cost{0, 4}, costs["a remote pod's label"][0], "an element for its address and one for its port, in each family")
		require.Equal(t, cost{0, 4}, costs["its label again"][0])
		require.Equal(t, cost{}, costs["a label that nobody asks for"][0])
		require.Equal(t, float64(2), costs["a policy"][0].restores, "one of each family")
	})
}

const admitsOthers = `
metadata: {name: admits-others}
spec:
  podSelector: {matchLabels: {role: db}}
  policyTypes: [Ingress]
  ingress: [{from: [{podSelector: {matchLabels: {other: label}}}]}]
`

// Where only elements of sets move, nothing else is computed or compared.
func TestElementsMoveAlone(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(admitsFrontends)
	s.sync()
	require.False(t, s.enforcer.same)
	s.settle()
	s.enforcer.metrics.Show(s.enforcer.snapshot(0))
	members := func() float64 { return metricstest.Scrape(t, s.enforcer.metrics)["ipset_members IPv4"] }
	before := members()

	s.label("busybox", map[string]string{"role": "frontend"})
	s.sync()
	require.True(t, s.enforcer.same)
	moved := members()
	require.Greater(t, moved, before)
	s.enforcer.metrics.Show(s.enforcer.snapshot(0))
	require.Equal(t, members(), moved, "as a walk over the sets counts them")

	s.label("test-np", nil)
	s.sync()
	require.False(t, s.enforcer.same, "a pod of this node")
	s.requirePing(true, "project", "test-np")
	s.enforcer.distrust()
	s.sync()
	require.False(t, s.enforcer.same, "the kernel is read")
}

func TestBurstsAreGathered(t *testing.T) {
	require.Equal(t, restLeast, restAfter(time.Millisecond))
	require.Equal(t, 40*time.Millisecond, restAfter(40*time.Millisecond), "half of the time at most")
	require.Equal(t, restMost, restAfter(time.Minute))

	a := &Agent{model: node.New("node-1"), enforcer: newEnforcer("")}
	now := time.Now()
	a.model.Poke()
	require.True(t, a.gather(t.Context(), now.Add(-time.Second), restLeast))
	require.Len(t, a.model.Changed, 1, "after quiet: at once")
	require.True(t, a.gather(t.Context(), time.Now(), 20*time.Millisecond))
	require.Empty(t, a.model.Changed, "the sync that follows sees the change")
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	require.False(t, a.gather(ended, now, time.Minute))

	// What moves elements of sets alone waits for longer, until something comes that
	// the rules depend on.
	require.True(t, a.enforcer.look(a.model))
	now = time.Now()
	require.True(t, a.gather(t.Context(), now, time.Millisecond))
	require.GreaterOrEqual(t, time.Since(now), restMembers)
	a.model.Renew()
	now = time.Now()
	require.True(t, a.gather(t.Context(), now, time.Millisecond))
	require.Less(t, time.Since(now), restMembers)
}
