package dataplane

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/podstart"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// guardNode gives the scene's node its pod CIDRs and switches the guard on.
func (s *scene) guardNode() {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: thisNode}}
	for _, cidr := range s.node.PodCIDRs() {
		node.Spec.PodCIDRs = append(node.Spec.PodCIDRs, cidr.String())
	}
	s.model.SetNode(node)
	s.model.GuardFromNowOn()
}

// requirePings pings in each family that both ends have.
func (s *scene) requirePings(want bool, from, to *nodetest.Host) {
	s.t.Helper()
	for _, addr := range to.Addrs {
		require.Equal(s.t, want, from.Ping(addr, patience(want)), "ping %v -> %s\n%s", from.Addrs, addr, s.dump())
	}
}

// guardDropped returns what the metric says after a full read.
func (s *scene) guardDropped() map[ruleset.Family]uint64 {
	s.t.Helper()
	s.enforcer.distrust()
	s.sync()
	return countedPackets(s.t, s.enforcer.metrics, "guard_dropped_packets_total")
}

// A new pod's addresses are closed in both directions until the pod is programmed,
// be it isolated or not, and closed again once its sandbox has ended. Pods that
// were known before the guard came are never interrupted, nor is the node.
func TestTheGuardClosesAPodUntilItIsProgrammed(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.guardNode()
		s.sync()
		require.Equal(t, map[ruleset.Family]uint64{ruleset.IPv4: 0, ruleset.IPv6: 0}, s.guardDropped())
		old, remote := s.hosts["neighbour"], s.hosts["busybox"]
		s.requirePings(true, remote, old)
		s.requirePings(true, old, remote)

		fresh := s.node.AddPod(t, "10.244.1.40", "fd00:10:244:1::40")
		s.requirePings(false, remote, fresh)
		s.requirePings(false, old, fresh)
		s.requirePings(false, fresh, remote)
		s.requirePings(false, fresh, s.node.Host)
		require.NotZero(t, s.guardDropped()[ruleset.IPv4])
		require.NotZero(t, s.guardDropped()[ruleset.IPv6])
		s.requirePings(true, s.node.Host, fresh)
		for _, addr := range s.node.Addrs {
			require.True(t, s.node.Ping(addr, answerWithin), "the node to its own address %s", addr)
		}

		sandbox := podstart.Sandbox{ID: "1", UID: "u", Namespace: "default", Name: "fresh", Labels: map[string]string{"role": "db"}, Addrs: fresh.Addrs}
		s.apply(walkThrough)
		s.model.StartSandbox(sandbox)
		s.sync()
		s.requirePings(false, remote, fresh)
		s.requirePings(true, s.hosts["project"], fresh)

		s.model.StopSandbox(sandbox)
		s.sync()
		s.requirePings(false, s.hosts["project"], fresh)
		s.requirePings(true, remote, old)

		s.model.GuardNoMore() // the runtime tells no addresses any more
		s.sync()
		s.requirePings(true, remote, fresh)
		s.requirePings(true, remote, old)
		require.NotContains(t, s.dump(), compile.GuardChain)
	})
}

// Where rules can't be written, a new pod that nothing isolates has its network all the
// same: none of the rules is its own.
func TestAFailedRestoreDarkensNobody(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.guardNode()
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	fresh := s.node.AddPod(t, "10.244.1.40", "fd00:10:244:1::40")
	s.breakRestore(true)
	s.remove("test-network-policy") // another pod's
	s.model.StartSandbox(podstart.Sandbox{ID: "1", UID: "u", Namespace: "default", Name: "fresh", Addrs: fresh.Addrs})
	require.Error(t, s.trySync())
	s.requirePings(true, s.hosts["busybox"], fresh)
	s.requirePings(true, fresh, s.hosts["busybox"])
}

// Where the rules of a new pod can't be written it stays closed.
func TestAFailedRestoreKeepsTheGuardUp(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.guardNode()
	s.apply(walkThrough)
	s.sync()
	fresh := s.node.AddPod(t, "10.244.1.40")
	s.breakRestore(true)
	s.model.StartSandbox(podstart.Sandbox{
		ID: "1", UID: "u", Namespace: "default", Name: "fresh",
		Labels: map[string]string{"role": "db"}, Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.40")},
	})
	require.Error(t, s.trySync())
	s.requirePings(false, s.hosts["project"], fresh)

	s.breakRestore(false)
	s.sync()
	s.requirePings(true, s.hosts["project"], fresh)
	s.requirePings(false, s.hosts["busybox"], fresh)
}

// Where a table can't be read, its guard may stand: an isolated pod that comes then doesn't
// pass it before the pod's rules are written.
func TestATableThatCannotBeReadLetsNoIsolatedPodIn(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.guardNode()
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "iptables-nft-save"), []byte("#!/bin/sh\nkill -9 $$\n"), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s.enforcer.requested, s.enforcer.runners = iptables.NFT, nil // finds its programs again
	s.enforcer.distrust()
	s.pod("default", "isolated", map[string]string{"role": "db"}, "10.244.1.41", "fd00:10:244:1::41")
	require.ErrorContains(t, s.trySync(), "killed")
	for family, want := range map[ruleset.Family]bool{ruleset.IPv4: false, ruleset.IPv6: true} {
		inside, err := s.enforcer.sets.Members(compile.LocalSet(family))
		require.NoError(t, err)
		addr := map[ruleset.Family]string{ruleset.IPv4: "10.244.1.41", ruleset.IPv6: "fd00:10:244:1::41"}[family]
		_, is := inside[ruleset.Address(netip.MustParseAddr(addr))]
		require.Equal(t, want, is, "%s", family)
	}
}
