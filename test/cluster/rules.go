package cluster

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
)

// RemoveRules removes every chain and set of Moat from the node, of both backends
// and families. A running agent would put them back.
func (n *Node) RemoveRules(t testing.TB) {
	t.Helper()
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		for _, family := range []string{"iptables", "ip6tables"} {
			program := strings.Replace(string(backend), "iptables", family, 1)
			if undo := undo(n.Run(t, program+"-save", "-t", "filter")); undo != "" {
				n.restore(t, program+"-restore", undo)
			}
		}
	}
	for set := range strings.Lines(n.Run(t, "ipset", "list", "-name")) {
		if strings.HasPrefix(set, strings.ToLower(compile.ChainPrefix)) {
			n.Run(t, "ipset", "destroy", strings.TrimSpace(set))
		}
	}
}

// Rules returns what is in the node's filter tables and sets.
func (n *Node) Rules(t testing.TB, backend iptables.Backend) string {
	t.Helper()
	ipv6 := strings.Replace(string(backend), "iptables", "ip6tables", 1)
	return n.Run(t, string(backend)+"-save", "-t", "filter") + n.Run(t, ipv6+"-save", "-t", "filter") + n.Run(t, "ipset", "save")
}

// undo returns the input of iptables-restore --noflush that removes Moat's chains
// and the jumps to them, or nothing where there are none.
func undo(dump string) string {
	var jumps, flushes, deletions strings.Builder
	for line := range strings.Lines(dump) {
		if chain, ok := strings.CutPrefix(line, ":"+compile.ChainPrefix); ok {
			name, _, _ := strings.Cut(chain, " ")
			flushes.WriteString("-F " + compile.ChainPrefix + name + "\n")
			deletions.WriteString("-X " + compile.ChainPrefix + name + "\n")
		}
		rule, ok := strings.CutPrefix(line, "-A ")
		if ok && !strings.HasPrefix(rule, compile.ChainPrefix) && strings.Contains(rule, " -j "+compile.ChainPrefix) {
			jumps.WriteString("-D " + rule)
		}
	}
	if flushes.Len() == 0 {
		return ""
	}
	return "*filter\n" + jumps.String() + flushes.String() + deletions.String() + "COMMIT\n"
}

func (n *Node) restore(t testing.TB, program, input string) {
	t.Helper()
	var output []byte
	err := n.Do(func() (err error) {
		cmd := exec.Command(program, "--noflush", "--wait")
		cmd.Env = n.env()
		cmd.Stdin = strings.NewReader(input)
		output, err = cmd.CombinedOutput()
		return err
	})
	require.NoError(t, err, "%s on %s: %s\n%s", program, n.Name, output, input)
}
