package dataplane

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/report"
)

// withoutExtension makes the agent's iptables lack extensions that other programs on the
// node have. scene.run is for these.
func withoutExtension(t *testing.T, names ...string) {
	t.Helper()
	path, err := exec.Command("sh", "-c", "ls -d /usr/lib/*/xtables /usr/lib/xtables /usr/lib64/xtables 2>/dev/null | head -1").Output()
	require.NoError(t, err)
	all := strings.TrimSpace(string(path))
	files, err := os.ReadDir(all)
	require.NoError(t, err)
	require.NotEmpty(t, files)
	dir := t.TempDir()
	for _, file := range files {
		_, name, _ := strings.Cut(strings.TrimSuffix(file.Name(), ".so"), "_")
		if !slices.Contains(names, name) {
			require.NoError(t, os.Symlink(filepath.Join(all, file.Name()), filepath.Join(dir, file.Name())))
		}
	}
	t.Setenv("XTABLES_LIBDIR", dir)
}

// healthy is the dump without rules of the extension that the agent lacks.
func (s *scene) healthy() string {
	var kept []string
	for line := range strings.Lines(withoutCounters(s.dump())) {
		if !strings.Contains(line, "statistic") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// Where the mangle table has a rule that the agent's iptables doesn't know, whatever
// others do to Moat's chains is repaired all the same, and their rule stays.
func TestRepairBesideAnUnknownExtension(t *testing.T) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			withoutExtension(t, "statistic")
			s := walkThroughScene(t, backend)
			s.label("test-np", map[string]string{"role": "db"})
			s.apply(walkThrough)
			s.sync()
			s.comeToRest()
			healthy := s.healthy()
			unknown := strings.Fields("-m statistic --mode random --probability 0.5 -j RETURN")
			in := func(program string, args ...string) {
				s.run(program, append([]string{"-w", "-t", "mangle"}, args...)...)
			}
			both := func(args ...string) {
				in(string(backend), args...)
				in(strings.Replace(string(backend), "iptables", "ip6tables", 1), args...)
			}
			both(append([]string{"-I", "FORWARD", "1"}, unknown...)...)
			s.inspect()
			s.sync()
			s.requireRepaired(healthy)
			for name, harm := range map[string]func(){
				"nothing":             func() {},
				"chain flushed":       func() { both("-F", "MOAT-INGRESS") },
				"IPv6 chain flushed":  func() { in(strings.Replace(string(backend), "iptables", "ip6tables", 1), "-F", "MOAT-FORWARD") },
				"hook deleted":        func() { both(append([]string{"-D", "FORWARD"}, strings.Fields(hook("FORWARD"))...)...) },
				"hook twice":          func() { both(append([]string{"-A", "FORWARD"}, strings.Fields(hook("FORWARD"))...)...) },
				"hook not first":      func() { both(append([]string{"-I", "FORWARD", "1"}, unknown...)...) },
				"rule added":          func() { both("-I", "MOAT-FORWARD", "1", "-j", "RETURN") },
				"unknown rule inside": func() { both(append([]string{"-I", "MOAT-FORWARD", "1"}, unknown...)...) },
				"early chain flushed": func() { both("-F", "MOAT_PREROUTING") },
				"early hook deleted":  func() { both("-F", "PREROUTING") },
				"stale chain":         func() { both("-N", "MOAT-OLD") },
				"table flushed": func() {
					both("-F")
					both("-X")
					both(append([]string{"-A", "POSTROUTING"}, unknown...)...)
				},
				"another unknown rule": func() { both(append([]string{"-A", "POSTROUTING"}, unknown...)...) },
			} {
				t.Run(name, func(t *testing.T) {
					harm()
					s.inspect()
					s.sync()
					if name == "hook twice" { // a copy does no harm, and may stay
						s.requirePing(false, "neighbour", "test-np")
						both(append([]string{"-D", "FORWARD"}, strings.Fields(hook("FORWARD"))...)...)
						s.inspect()
						s.sync()
					}
					s.requireRepaired(healthy)
				})
			}
			r := report.New(nil, nil, "node-1", logr.Discard())
			r.Found(s.enforcer.surroundings())
			synced := apimeta.FindStatusCondition(observed(r, s.enforcer.view, nil).Conditions, v1alpha1.NodeConditionDataplaneSynced)
			require.Contains(t, synced.Message, "Moat writes its own without reading others'")
		})
	}
}

// requireRepaired requires that Moat's rules are as they were and in force.
func (s *scene) requireRepaired(healthy string) {
	s.t.Helper()
	s.requirePing(false, "neighbour", "test-np")
	s.requirePing(true, "project", "test-np")
	require.Equal(s.t, healthy, s.healthy())
	require.True(s.t, s.enforcer.trusted)
}

// The families are independent: what can't be written in one keeps no rule from the
// other, and the report says of which.
func TestAFamilyThatFailsLeavesTheOtherAlone(t *testing.T) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			s := walkThroughScene(t, backend)
			s.label("test-np", map[string]string{"role": "db"})
			s.apply(walkThrough)
			s.apply("metadata: {name: v4-only}\nspec: {podSelector: {matchLabels: {role: four}}, policyTypes: [Ingress]}")
			s.pod("default", "four", map[string]string{"role": "four"}, "10.244.1.14")
			s.sync()
			s.comeToRest()
			r := report.New(nil, nil, "node-1", logr.Discard())
			require.EqualValues(t, 2, observed(r, s.enforcer.view, nil).PolicyCount)

			s.replaceRestore(strings.Replace(string(backend), "iptables", "ip6tables", 1))
			for _, program := range []string{"iptables", "ip6tables"} {
				s.damage(program + " -F MOAT-INGRESS")
			}
			s.inspect()
			err := s.trySync()
			require.ErrorContains(t, err, "IPv6: ")
			require.NotContains(t, err.Error(), "IPv4")
			require.ErrorContains(t, err, "damaged")
			s.requirePing(false, "neighbour", "test-np")
			status := observed(r, s.enforcer.view, err)
			require.EqualValues(t, 1, status.PolicyCount, "the other one's pod has an address of IPv6")
			require.Contains(t, apimeta.FindStatusCondition(status.Conditions, v1alpha1.NodeConditionDataplaneSynced).Message, "IPv6")

			s.breakRestore(false)
			s.sync()
			require.EqualValues(t, 2, observed(r, s.enforcer.view, nil).PolicyCount)
			s.requireAgreement()
		})
	}
}

// replaceRestore puts a program in front of iptables-restore of one family that fails;
// breakRestore takes it away.
func (s *scene) replaceRestore(command string) {
	s.t.Helper()
	dir := s.t.TempDir()
	require.NoError(s.t, os.WriteFile(filepath.Join(dir, command+"-restore"), []byte("#!/bin/sh\necho 'Table does not exist' >&2\nexit 3\n"), 0o755))
	s.t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s.enforcer.runners = nil // finds its programs again
}
