package dataplane

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/report"
)

func foreignLines(dump string) string {
	var kept []string
	for line := range strings.Lines(dump) {
		if strings.HasPrefix(line, "#") || strings.Contains(line, compile.ChainPrefix) || strings.Contains(line, compile.EarlyChain) {
			continue
		}
		if name, ok := strings.CutPrefix(line, ":"); ok {
			line, _, _ = strings.Cut(name, "[") // packet counters move
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}

// A fresh enforcer finds the state of the one before it and changes nothing.
func TestRestartChangesNothing(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		s.sync()
		s.requirePing(false, "neighbour", "test-np")
		before := s.run(string(backend)+"-save", "-c", "-t", "mangle")
		require.Contains(t, before, "[1:28] -A MOAT-I-", "the dropped ping is counted")

		s.enforcer.sets.Close()
		s.enforcer = newEnforcer(backend)
		s.sync()
		after := s.run(string(backend)+"-save", "-c", "-t", "mangle")
		require.Equal(t, withoutCounters(before), withoutCounters(after), "counters too: no chain was rewritten")
	})
}

func TestDetectFollowsTheNode(t *testing.T) {
	detect := func(s *scene) (backend iptables.Backend) {
		require.NoError(t, s.node.Do(func() error {
			backend = iptables.Detect(context.Background(), compile.ChainPrefix)
			return nil
		}))
		return backend
	}
	s := newScene(t, "")
	require.Equal(t, iptables.NFT, detect(s), "a node without rules")
	s.run("iptables-legacy", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
	require.Equal(t, iptables.Legacy, detect(s), "kubelet uses legacy")
	s.run("iptables-nft", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
	require.Equal(t, iptables.NFT, detect(s), "kubelet went over to nft, its old chain is left")

	s = newScene(t, "")
	detect(s)
	require.NotContains(t, s.run("iptables-nft-save"), "iptables-legacy tables present", "to look leaves no trace")
}

func TestBridgeFilterIsSwitchedOn(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	a := &Agent{options: Options{SysctlDir: "/proc/sys/net"}}
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	require.NoError(t, s.node.Do(func() error { return nodetest.SetSysctl("bridge/bridge-nf-call-iptables", "0") }))
	s.requirePing(true, "neighbour", "test-np")

	require.NoError(t, s.node.Do(func() error { return host.FilterBridged(a.options.SysctlDir) }))
	s.requirePing(false, "neighbour", "test-np")

	a.options.SysctlDir = t.TempDir()
	require.ErrorContains(t, s.node.Do(func() error { return host.FilterBridged(a.options.SysctlDir) }), "load the kernel module br_netfilter")
}

// What keeps an agent from its work is named, with the way out.
func TestMissingRequirementsAreNamed(t *testing.T) {
	t.Run("no NET_ADMIN", func(t *testing.T) {
		s := walkThroughScene(t, iptables.NFT)
		err := s.node.Do(func() error {
			if err := dropNetAdmin(); err != nil {
				return err
			}
			return s.enforcer.sync(context.Background(), s.model)
		})
		require.ErrorContains(t, err, "capability NET_ADMIN")
		require.Equal(t, v1alpha1.NodeReasonPermissionDenied, report.ReasonOf(err))
	})
	t.Run("no iptables", func(t *testing.T) {
		s := walkThroughScene(t, iptables.NFT)
		t.Setenv("PATH", t.TempDir())
		err := s.trySync()
		require.ErrorContains(t, err, "finding iptables-nft: iptables is not installed")
		require.Equal(t, v1alpha1.NodeReasonIptablesMissing, report.ReasonOf(err))
	})
}

// dropNetAdmin takes the capability from the calling thread.
func dropNetAdmin() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	data[0].Permitted &^= 1 << unix.CAP_NET_ADMIN
	return unix.Capset(&header, &data[0])
}
