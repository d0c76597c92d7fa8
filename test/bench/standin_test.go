package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/test/bench/results"
)

// The stand-in does what enforcers do that know only whole states: for each change it
// makes every set anew beside the old one and swaps the two, and restores the
// whole table. The state is Moat's own, so it is a lower bound: programs
// like that use one set per policy and direction and don't share any.

// standInSamples is how often the stand-in writes everything.
const standInSamples = 20

// measureStandIn writes the node's rules and sets on a node that has none.
func (s *scene) measureStandIn(t testing.TB) []results.Figure {
	t.Helper()
	backend := string(s.options.backend)
	dir := t.TempDir()
	rules, sets := filepath.Join(dir, "rules"), filepath.Join(dir, "sets")
	require.NoError(t, os.WriteFile(rules, []byte(s.node.Run(t, backend+"-save", "-t", "mangle")), 0o600))
	saved := s.node.Run(t, "ipset", "save")
	require.NoError(t, os.WriteFile(filepath.Join(dir, "first"), []byte(saved), 0o600))
	require.NoError(t, os.WriteFile(sets, []byte(swapSets(saved)), 0o600))
	s.spare.Run(t, "ipset", "restore", "-file", filepath.Join(dir, "first"))

	var label, policy []time.Duration
	detail := func() string { return fmt.Sprintf("%d of %d", len(policy), standInSamples) }
	during("the stand-in: writing whole states", detail, func() {
		for range standInSamples {
			start := time.Now()
			s.spare.Run(t, "ipset", "restore", "-file", sets)
			label = append(label, time.Since(start))
			s.spare.Run(t, backend+"-restore", rules)
			policy = append(policy, time.Since(start))
		}
	})
	return []results.Figure{
		results.Milliseconds(results.StandInLabel, label),
		results.Milliseconds(results.StandInPolicy, policy),
	}
}

// swapSets turns an ipset save into what makes each set anew under another name, swaps
// it with the old one, and destroys that.
func swapSets(saved string) string {
	const suffix = "~"
	var lines, swaps []string
	for line := range strings.Lines(saved) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		name := words[1]
		words[1] = name + suffix
		lines = append(lines, strings.Join(words, " "))
		if words[0] == "create" {
			swaps = append(swaps, "swap "+name+suffix+" "+name, "destroy "+name+suffix)
		}
	}
	return strings.Join(append(lines, swaps...), "\n") + "\n"
}

func TestSwapSetsMakesASetAnew(t *testing.T) {
	require.Equal(t, "create a~ hash:ip family inet\nadd a~ 10.0.0.1\nswap a~ a\ndestroy a~\n",
		swapSets("create a hash:ip family inet\nadd a 10.0.0.1\n"))
	_, err := exec.LookPath("ipset")
	require.NoError(t, err)
}
