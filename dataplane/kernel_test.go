package dataplane

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// The scene that every user knows.
func TestWalkThrough(t *testing.T) {
	t.Parallel()
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.sync()
		s.requirePing(true, "busybox", "test-np")

		s.apply(walkThrough)
		s.sync()
		s.requirePing(true, "busybox", "test-np")
		s.label("test-np", map[string]string{"role": "db"})
		s.sync()
		s.requirePing(false, "busybox", "test-np")
		s.requirePing(false, "neighbour", "test-np")
		s.requireTCP(true, "busybox", "test-np", 80)
		s.requireTCP(false, "busybox", "test-np", 81)
		s.requirePing(true, "project", "test-np")
		s.requirePing(true, "office", "test-np")
		s.requirePing(false, "excepted", "test-np")
		s.requireTCP(true, "test-np", "upstream", 5978)
		s.requireTCP(false, "test-np", "upstream", 80)
		s.requireTCP(false, "test-np", "busybox", 5978)
		s.requirePing(true, "test-np", "test-np")

		s.label("busybox", map[string]string{"role": "frontend"})
		s.sync()
		s.requirePing(true, "busybox", "test-np")
		s.requireAgreement()

		s.remove("test-network-policy")
		s.sync()
		s.requirePing(true, "neighbour", "test-np")
		s.requireAgreement()
	})
}

// The rules that the documents show as a dump are what the kernel holds.
func TestTheDocumentedDumpIsReal(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.guardNode()
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	dump := s.dump()
	for page, least := range map[string]int{"rules.md": 16, "packets.md": 5, "pod-start.md": 4} {
		text, err := os.ReadFile("../docs/design/" + page)
		require.NoError(t, err)
		documented := regexp.MustCompile(`(?m)^-A .*?( +\([0-9]+\))?$`).FindAllString(string(text), -1)
		require.GreaterOrEqual(t, len(documented), least, page)
		for _, line := range documented {
			rule, _, _ := strings.Cut(line, "   ")
			require.Contains(t, dump, strings.TrimSpace(rule)+"\n", page)
		}
	}
}

func TestHostReachesItsOwnPods(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	addr := netip.MustParseAddr("10.244.1.10")
	require.True(t, s.node.Ping(addr, answerWithin), "the kubelet's probes always pass")
	require.False(t, s.hosts["test-np"].Ping(nodetest.NodeAddr4, silentAfter), "pod -> own node passes the pod's egress rules")
	require.True(t, s.hosts["neighbour"].Ping(nodetest.NodeAddr4, answerWithin))
}

// A pod that is isolated but that the rules don't know must be closed: this is
// what stands between two steps, and after a restore that failed.
func TestAnIsolatedPodWithoutRulesIsClosed(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	s.sync()
	s.run("ipset", "add", "moat-4-ingress", "10.244.1.11")
	s.requirePing(false, "busybox", "neighbour")
	s.run("ipset", "del", "moat-4-ingress", "10.244.1.11")
	s.requirePing(true, "busybox", "neighbour")
}

func TestAFailedRestoreClosesNewlyIsolatedPods(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.sync()
	for _, runner := range s.enforcer.runners {
		require.NotNil(t, runner)
	}
	s.breakRestore(true)
	s.label("test-np", map[string]string{"role": "db"})
	s.apply(walkThrough)
	require.ErrorContains(t, s.trySync(), "restoring the mangle table")
	s.requirePing(false, "busybox", "test-np")
	s.requirePing(true, "busybox", "neighbour")

	s.breakRestore(false)
	s.sync()
	s.requireAgreement()
}

// breakRestore puts programs in front of the real ones that refuse to restore.
func (s *scene) breakRestore(broken bool) {
	s.t.Helper()
	if broken {
		dir := s.t.TempDir()
		for _, name := range []string{"iptables-nft-restore", "ip6tables-nft-restore"} {
			require.NoError(s.t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho broken >&2\nexit 1\n"), 0o755))
		}
		s.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	} else {
		_, rest, _ := strings.Cut(os.Getenv("PATH"), ":")
		s.t.Setenv("PATH", rest)
	}
	s.enforcer.runners = nil // finds its programs again
}

// Whatever somebody does to Moat's state comes back at the next full pass, and
// what isn't Moat's stays as it is.
func TestRepair(t *testing.T) {
	t.Parallel()
	damage := map[string]func(s *scene, iptablesCommand string){
		"hook deleted": func(s *scene, command string) { s.run(command, "-t", "mangle", "-D", "FORWARD", "1") },
		"hook not first": func(s *scene, command string) {
			s.run(command, "-t", "mangle", "-I", "FORWARD", "1", "-s", "10.244.0.0/16", "-j", "ACCEPT")
		},
		"hook twice":    func(s *scene, command string) { s.run(command, "-t", "mangle", "-A", "FORWARD", "-j", "MOAT-FORWARD") },
		"chain flushed": func(s *scene, command string) { s.run(command, "-t", "mangle", "-F", "MOAT-INGRESS") },
		"table flushed": func(s *scene, command string) {
			s.run(command, "-t", "mangle", "-F")
			s.run(command, "-t", "mangle", "-X")
		},
		"rule added": func(s *scene, command string) {
			s.run(command, "-t", "mangle", "-I", "MOAT-FORWARD", "1", "-j", "ACCEPT")
		},
		"set flushed":  func(s *scene, _ string) { s.run("ipset", "flush", "moat-4-ingress") },
		"set polluted": func(s *scene, _ string) { s.run("ipset", "add", "moat-4-ingress", "10.244.1.11") },
		"stale chain":  func(s *scene, command string) { s.run(command, "-t", "mangle", "-N", "MOAT-OLD") },
	}
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.label("test-np", map[string]string{"role": "db"})
		s.apply(walkThrough)
		s.sync()
		healthy := withoutCounters(s.dump())
		for name, harm := range damage {
			t.Run(name, func(t *testing.T) {
				harm(s, string(backend))
				s.enforcer.distrust()
				s.sync()
				s.requirePing(false, "neighbour", "test-np")
				s.requirePing(true, "busybox", "neighbour")
				if name == "hook not first" {
					s.run(string(backend), "-t", "mangle", "-D", "FORWARD", "-s", "10.244.0.0/16", "-j", "ACCEPT")
				}
				require.Equal(t, healthy, withoutCounters(s.dump()))
			})
		}
	})
}

// withoutCounters makes two dumps comparable: elements of a set come in an order
// that depends on its history.
func withoutCounters(dump string) string {
	var kept []string
	for line := range strings.Lines(dump) {
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ":") || strings.HasPrefix(line, "create ") {
			continue
		}
		kept = append(kept, line)
	}
	return strings.Join(kept, "")
}
