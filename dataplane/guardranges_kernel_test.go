package dataplane

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/node"
	"github.com/moat-dev/moat/dataplane/node/modeltest"
)

// A Node that is made again without podCIDRs keeps its guard: its pods run on. So does the
// agent that starts next. Ranges that the Node gets later count.
func TestTheGuardOutlivesItsNodesRanges(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.guardNode()
		// Pods of other nodes pass by a chain of their own.
		foreign := s.node.AddBehindRouter(t, routerMTU, "10.244.1.77", "fd00:10:244:1::77")
		s.show("foreign", "elsewhere", nil, foreign)
		s.sync()
		fresh := s.node.AddPod(t, "10.244.1.40", "fd00:10:244:1::40")
		remote, old := s.hosts["busybox"], s.hosts["neighbour"]
		guarded := func() {
			t.Helper()
			s.sync()
			s.requirePings(false, remote, fresh)
			s.requirePings(false, fresh, remote)
			s.requirePings(true, remote, old)
			s.requirePings(true, remote, foreign)
		}
		guarded()
		anew := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: thisNode}}
		s.model.SetNode(anew)
		guarded()

		pods := s.pods
		s.model = node.New(thisNode)
		s.enforcer.close()
		s.enforcer = newEnforcer(backend)
		s.model.SetNode(anew)
		for _, pod := range pods {
			s.update(pod)
		}
		for _, namespace := range s.namespaces {
			modeltest.See(s.model, namespace)
		}
		a := &Agent{model: s.model, enforcer: s.enforcer, log: logr.Discard()}
		require.NoError(t, s.node.Do(func() error {
			a.keepRanges(t.Context())
			return nil
		}))
		s.model.GuardFromNowOn()
		guarded()
		_, ranges := s.model.Guarded()
		require.ElementsMatch(t, slices.Collect(slices.Values(s.node.PodCIDRs())), ranges)

		anew.Spec.PodCIDRs = []string{"10.244.9.0/24"}
		s.model.SetNode(anew)
		s.sync()
		s.requirePings(true, remote, fresh)
		_, ranges = s.model.Guarded()
		require.Equal(t, []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24")}, ranges)
	})
}
