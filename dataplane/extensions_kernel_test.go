package dataplane

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/metrics/metricstest"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// A match that is missing makes no restore fail. The rules do without it and the node says
// so, until it is there.
func TestRulesDoWithoutAMissingMatch(t *testing.T) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			s := closedScene(t, backend)
			metric := func() float64 {
				s.enforcer.metrics.Show(s.enforcer.snapshot(0))
				return metricstest.Scrape(t, s.enforcer.metrics)["iptables_missing_matches IPv6"]
			}
			t.Run("missing", func(t *testing.T) {
				withoutExtension(t, "hl", "pkttype")
				s.sync()
				require.Equal(t, "IPv4: [pkttype]; IPv6: [hl pkttype]", s.enforcer.extensions.String())
				require.EqualValues(t, 2, metric())
				require.NotContains(t, s.dump()+s.mangle6(), "pkttype")
				require.NotContains(t, s.mangle6(), "-m hl")
				require.Contains(t, s.mangle6(), "--icmpv6-type 135 -m length --length 0:128 -j RETURN")
				s.requireTCP(false, "open", "b", 80)
				r := report.New(nil, nil, "node-1", logr.Discard())
				r.Found(s.enforcer.surroundings())
				synced := apimeta.FindStatusCondition(observed(r, s.enforcer.view, nil).Conditions, v1alpha1.NodeConditionDataplaneSynced)
				require.Contains(t, synced.Message, "IPv6: [hl pkttype]")
				s.comeToRest()
			})
			s.enforcer.distrust()
			s.sync()
			require.Empty(t, s.enforcer.extensions.String())
			require.Zero(t, metric())
			require.Contains(t, s.mangle6(), "--icmpv6-type 135 -m hl --hl-eq 255 -m length --length 0:128 -j RETURN")
			require.NotContains(t, s.dump()+s.mangle6(), "PROBE")
			require.Contains(t, s.mangle6(), "-A PREROUTING -m pkttype ! --pkt-type unicast -j MOAT_PREROUTING")
		})
	}
}

// While another program holds the lock of iptables, an agent that starts doesn't learn which
// matches there are. It leaves the rules as they are: others without a match would be weaker.
func TestALockThatIsHeldWeakensNoRule(t *testing.T) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			s := closedScene(t, backend)
			s.sync()
			mangle := func() string { return withoutCounters(s.run(string(backend)+"-save", "-t", "mangle") + s.mangle6()) }
			before := mangle()
			require.Contains(t, before, "-m hl --hl-eq 255")

			dir := t.TempDir()
			for _, command := range []string{"iptables", "ip6tables"} {
				name := strings.Replace(string(backend), "iptables", command, 1) + "-restore"
				program := findProgram(t, name)
				// The other program is done when the restore comes.
				script := "#!/bin/sh\nscript=$(cat)\n" +
					"case $script in *PROBE*) echo 'Another app is currently holding the xtables lock.' >&2; exit 4;; esac\n" +
					`printf '%s\n' "$script" | ` + program + ` "$@"` + "\n"
				require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755))
			}
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
			s.restart(backend)
			err := s.trySync()
			require.True(t, iptables.IsLock(err), "%v", err)
			require.Equal(t, before, mangle())

			_, path, _ := strings.Cut(os.Getenv("PATH"), ":")
			t.Setenv("PATH", path)
			s.enforcer.runners = nil // finds its programs again
			s.sync()
			require.Equal(t, before, mangle())
		})
	}
}

// mangle6 is what ip6tables-save says of the mangle table.
func (s *scene) mangle6() string {
	program := strings.Replace(string(s.enforcer.backend), "iptables", "ip6tables", 1)
	return s.run(program+"-save", "-t", "mangle")
}

// The word for a match that the renderer doesn't know is one that iptables doesn't know
// either: a rule with a condition less is never made.
func TestNoProgramTakesAnUnknownMatch(t *testing.T) {
	nodetest.RequireKernel(t)
	t.Parallel()
	type unknown struct{ ruleset.Match }
	backends(t, func(t *testing.T, backend iptables.Backend) {
		node := nodetest.NewNode(t)
		for _, family := range ruleset.Families() {
			require.NoError(t, node.Do(func() error {
				runner, err := iptables.NewRunner(backend, family, "MOAT-")
				require.NoError(t, err)
				known, err := runner.Accepts(t.Context(), ruleset.EstablishedMatch{})
				require.NoError(t, err)
				require.True(t, known)
				accepts, err := runner.Accepts(t.Context(), ruleset.EstablishedMatch{}, unknown{})
				require.NoError(t, err)
				require.False(t, accepts)
				return nil
			}))
		}
	})
}
