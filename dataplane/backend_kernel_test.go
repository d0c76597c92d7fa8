package dataplane

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
)

// switchingScene is a node with the walk-through's policy in force, and rules of
// other programs in both backends.
func switchingScene(t *testing.T, requested iptables.Backend) (s *scene, foreign func() string, flows []flow) {
	t.Helper()
	s = walkThroughScene(t, requested)
	for _, command := range []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"} {
		s.run(command, "-N", "NEIGHBOUR")
		s.run(command, "-A", "NEIGHBOUR", "-m", "comment", "--comment", "it's not MOAT's", "-j", "RETURN")
		s.run(command, "-A", "FORWARD", "-j", "NEIGHBOUR")
		s.run(command, "-A", "INPUT", "-p", "tcp", "--dport", "9999", "-j", "DROP")
		s.run(command, "-t", "nat", "-N", "NEIGHBOUR-NAT")
		s.run(command, "-t", "mangle", "-A", "FORWARD", "-p", "tcp", "--dport", "9999", "-j", "DROP")
	}
	s.label("test-np", map[string]string{"role": "db"})
	s.label("busybox", map[string]string{"role": "frontend"})
	s.apply(walkThrough)
	foreign = func() string {
		dump := ""
		for _, command := range []string{"iptables-nft-save", "iptables-legacy-save", "ip6tables-nft-save", "ip6tables-legacy-save"} {
			dump += command + "\n" + foreignLines(s.run("sh", "-c", command+" 2>/dev/null")) // a warning would stand amid a line
		}
		return dump
	}
	flows = []flow{
		{s.hosts["busybox"], s.hosts["test-np"], true},
		{s.hosts["neighbour"], s.hosts["test-np"], false},
		{s.hosts["excepted"], s.hosts["test-np"], false},
		{s.hosts["office"], s.hosts["test-np"], true},
	}
	return s, foreign, flows
}

func (s *scene) requireOnlyIn(backend iptables.Backend) {
	s.t.Helper()
	for _, family := range []string{"iptables", "ip6tables"} {
		suffix := strings.TrimPrefix(string(backend), "iptables")
		require.Contains(s.t, s.run(family+suffix+"-save", "-t", "mangle"), compile.ChainPrefix)
		suffix = strings.TrimPrefix(string(backend.Other()), "iptables")
		require.NotContains(s.t, s.run(family+suffix+"-save", "-t", "mangle"), compile.ChainPrefix)
	}
}

// restart replaces the enforcer by that of a new agent.
func (s *scene) restart(requested iptables.Backend) {
	s.enforcer.close()
	s.enforcer = newEnforcer(requested)
}

// An agent that starts with another backend than the one before it takes the old
// rules away once its own are in force: what is forbidden never passes, what is
// allowed is never lost, and other programs' rules stay as they are in both.
func TestARestartWithAnotherBackendLeavesTheOldOne(t *testing.T) {
	backends(t, func(t *testing.T, old iptables.Backend) {
		s, foreign, flows := switchingScene(t, old)
		before := foreign()
		s.sync()
		s.requireOnlyIn(old)
		whileFlowing(t, flows, func() {
			for _, backend := range []iptables.Backend{old.Other(), old, old.Other()} {
				s.restart(backend)
				s.sync()
				s.requireOnlyIn(backend)
			}
		})
		require.Equal(t, before, foreign())
		s.requireAgreement()

		// The old rules' sets were in use until these went.
		s.restart(old)
		s.remove("test-network-policy")
		s.sync()
		s.sync()
		require.Equal(t, before, foreign())
		require.Equal(t, []string{"moat-4-egress", "moat-4-ingress", "moat-6-egress", "moat-6-ingress"}, strings.Fields(s.run("ipset", "list", "-n")))
		s.requirePing(true, "neighbour", "test-np")
	})
}

// Until the new rules are in force the old ones stay.
func TestTheOldBackendStaysUntilTheNewOneWorks(t *testing.T) {
	s, _, flows := switchingScene(t, iptables.Legacy)
	s.sync()
	s.restart(iptables.NFT)
	whileFlowing(t, flows, func() {
		s.breakRestoreAfter(s.enforcer)
		require.Error(t, s.trySync())
		require.Contains(t, s.run("iptables-legacy-save"), "-A FORWARD "+hook("FORWARD"))
		s.breakRestore(false)
		s.sync()
	})
	s.requireOnlyIn(iptables.NFT)
}

// breakRestoreAfter is breakRestore for an enforcer that hasn't begun.
func (s *scene) breakRestoreAfter(e *enforcer) {
	s.t.Helper()
	require.NoError(s.t, s.node.Do(func() error { return e.open(s.t.Context()) }))
	s.breakRestore(true)
}

// Where kubelet and kube-proxy go over to the other backend while the agent runs,
// it follows with the next look at the kernel.
func TestARunningAgentFollowsTheNode(t *testing.T) {
	s, foreign, flows := switchingScene(t, "")
	s.run("iptables-legacy", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
	s.sync()
	s.requireOnlyIn(iptables.Legacy)

	whileFlowing(t, flows, func() {
		s.run("iptables-nft", "-t", "mangle", "-N", "KUBE-IPTABLES-HINT")
		before := foreign()
		s.enforcer.distrust()
		s.sync()
		s.requireOnlyIn(iptables.NFT)
		require.Equal(t, before, foreign())

		s.run("iptables-nft", "-t", "mangle", "-X", "KUBE-IPTABLES-HINT")
		s.enforcer.distrust()
		s.sync()
		s.requireOnlyIn(iptables.Legacy)
	})
}

// A number of rules decides at the start and never again, and a table that can't be
// read says nothing.
func TestOnlyHintsMoveARunningAgent(t *testing.T) {
	s := newScene(t, "")
	changed := func(present iptables.Backend) (backend iptables.Backend) {
		require.NoError(t, s.node.Do(func() error {
			backend = iptables.DetectChange(context.Background(), present)
			return nil
		}))
		return backend
	}
	require.Equal(t, iptables.NFT, changed(iptables.NFT))
	require.Equal(t, iptables.Legacy, changed(iptables.Legacy))
	s.run("iptables-legacy", "-t", "mangle", "-A", "FORWARD", "-j", "ACCEPT")
	require.Equal(t, iptables.NFT, changed(iptables.NFT))
	s.run("iptables-legacy", "-t", "mangle", "-N", "KUBE-KUBELET-CANARY")
	require.Equal(t, iptables.Legacy, changed(iptables.NFT))

	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "iptables-nft-save"), []byte("#!/bin/sh\nexit 1\n"), 0o755))
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	require.Equal(t, iptables.NFT, changed(iptables.NFT))
}

// On a node without legacy tables none appear, and every later run of iptables-nft
// would warn of them.
func TestNoLegacyTablesAppear(t *testing.T) {
	s := walkThroughScene(t, "")
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	for range 3 {
		s.sync()
		s.enforcer.distrust()
	}
	s.requirePing(false, "neighbour", "test-np")
	for _, file := range []string{"ip_tables_names", "ip6_tables_names"} {
		require.Empty(t, s.run("cat", "/proc/thread-self/net/"+file))
	}
	require.Equal(t, iptables.NFT, s.enforcer.backend)
}

// The whole agent, started with one --iptables-backend after the other.
func TestAnAgentWithAnotherBackend(t *testing.T) {
	s := newAgentScene(t)
	server, peer := s.node.AddPod(t, "10.244.1.10"), s.node.AddPod(t, "10.244.1.11")
	s.pod("server", nil, server)
	s.start()
	np := s.create(`{metadata: {name: closed}, spec: {podSelector: {}, policyTypes: [Ingress]}}`)
	s.eventually(func() bool { return s.enforces(np) }, "the policy is in force")

	whileFlowing(t, []flow{{peer, server, false}, {server, peer, true}}, func() {
		for _, backend := range []iptables.Backend{iptables.Legacy, iptables.NFT} {
			s.stop()
			s.backend = backend
			s.start()
			s.eventually(func() bool { return s.report().Status.Backend == string(backend) }, "the report names the backend")
			require.Contains(t, runIn(t, s.node.Host, string(backend)+"-save", "-t", "mangle"), compile.ChainPrefix)
			require.NotContains(t, runIn(t, s.node.Host, string(backend.Other())+"-save", "-t", "mangle"), compile.ChainPrefix)
		}
	})
	s.stop()
}
