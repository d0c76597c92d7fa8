package chaos

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// lacking is an extension of iptables that the agents' programs don't have. The suite's
// own have it.
const lacking = "statistic"

// extensionFolders are where distributions keep the extensions of iptables.
var extensionFolders = []string{"/usr/lib/*/xtables", "/usr/lib/xtables", "/usr/lib64/xtables", "/lib/*/xtables", "/lib/xtables"}

// lackExtension takes the extension from the agents that start from now on.
func (a *agents) lackExtension(t *testing.T) {
	t.Helper()
	dir := extensionsButOne(t)
	for i := range a.env {
		a.env[i] = append(a.env[i], "XTABLES_LIBDIR="+dir)
	}
}

// extensionsButOne makes a folder with all extensions of iptables but the lacking one.
func extensionsButOne(t *testing.T) string {
	t.Helper()
	library, dir := "libxt_"+lacking+".so", t.TempDir()
	var found []string
	for _, folder := range extensionFolders {
		paths, err := filepath.Glob(folder + "/" + library)
		require.NoError(t, err)
		found = append(found, paths...)
	}
	require.NotEmpty(t, found, "no folder of %v has %s", extensionFolders, library)
	all, err := filepath.Glob(filepath.Dir(found[0]) + "/*.so")
	require.NoError(t, err)
	for _, path := range all {
		if filepath.Base(path) != library {
			require.NoError(t, os.Symlink(path, filepath.Join(dir, filepath.Base(path))))
		}
	}
	return dir
}

// foreignRules adds a rule that the agents' programs can't read to the tables that hold
// Moat's rules, and then damages those.
func (s *suite) foreignRules() {
	rule := strings.Fields("OUTPUT -m " + lacking + " --mode random --probability 0.5")
	s.make(fault{kind: kindForeign, name: "chains are flushed beside a rule that agents can't read", harms: true, do: func(a *attempt) {
		for i := range s.Nodes {
			s.runner(i)(append([]string{"-A"}, rule...)...)
		}
		see := s.welcomeEverywhere(a)
		a.damage(s)
		for i := range s.Nodes {
			s.eachChain(s.runner(i), "-F")
		}
		s.awaitRepair(a)
		see()
		for i := range s.Nodes {
			s.runner(i)(append([]string{"-D"}, rule...)...)
		}
	}})
	s.awaitRecovery()
}
