package compile_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Every rule that drops has a reason, and no other rule has one. The chain of a rule that drops
// for want of a policy's rule names the policies.
func TestEachDropHasAReason(t *testing.T) {
	seen := map[ruleset.DropReason]int{}
	inputs, err := filepath.Glob("testdata/*/input.yaml")
	require.NoError(t, err)
	for _, input := range inputs {
		c := readObjects(t, input).Cluster()
		for _, family := range ruleset.Families() {
			out := compileNode(c, "node-1", family, readPodCIDRs(t, filepath.Dir(input))...)
			requireReasons(t, &out, seen)
		}
	}
	forSamples(t, func(t *testing.T, s *sample) {
		requireReasons(t, &s.Output, seen)
		c := s.objects.Cluster()
		clashing := compileShort(c, s.node, s.family)
		requireReasons(t, &clashing, seen)
		out := compileAllDrops(c, s.node, s.family, compile.Cuts{compile.ByPolicy: {}, compile.ByLink: {}})
		requireReasons(t, &out, seen)
	})
	for reason := ruleset.NoReason + 1; reason <= ruleset.OddFrame; reason++ {
		require.NotZero(t, seen[reason], "no rule drops for reason %d", reason)
	}
}

func requireReasons(t *testing.T, out *compile.Output, seen map[ruleset.DropReason]int) {
	t.Helper()
	for _, chain := range out.Ruleset.Chains {
		for i := range chain.Rules {
			rule := &chain.Rules[i]
			require.Equal(t, rule.Action == ruleset.Drop, rule.Reason != ruleset.NoReason, "rule %d of %s", i, chain.Name)
			if rule.Action != ruleset.Drop {
				continue
			}
			seen[rule.Reason]++
			ofPolicies := rule.Reason == ruleset.NotAllowed || rule.Reason == ruleset.NameTaken
			require.Equal(t, ofPolicies, len(out.Origins[chain.Name]) > 0, "rule %d of %s", i, chain.Name)
		}
	}
}

// compileAllDrops compiles a node with everything that drops: a guard, closed links, a tunnel,
// forged sources and the given cuts. The guard knows half of the node's pods.
func compileAllDrops(c *policy.Cluster, node string, family ruleset.Family, cuts compile.Cuts) compile.Output {
	local := podsOf(c, node)
	links := compile.Links{policy.Ingress: {bridge}, policy.Egress: {bridge}}
	host := compile.Host{
		Ways:    map[netip.Addr]string{netip.MustParseAddr("10.0.0.1"): bridge},
		Tunnels: compile.Tunnels{Ports: []uint16{8472}},
	}
	guard := compile.Guard{PodCIDRs: hostsOf(c, node), Local: addrsOf(local[:len(local)/2]), Uplinks: []string{"eth0"}}
	out := compile.Compile(host, family, policy.Endpoints(local, c.Policies), links, guard)
	out.Cut(cuts, links)
	out.JudgeSources(compile.Sources{Links: []compile.PodLink{{Name: "veth0"}}, Forged: ruleset.Drop}, nil)
	return out
}

// No other function makes a rule that drops: one made elsewhere may lack its reason.
func TestDropIsTheOnlyMaker(t *testing.T) {
	files, err := filepath.Glob("*.go")
	require.NoError(t, err)
	var makers []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		tree, err := parser.ParseFile(token.NewFileSet(), file, text, 0)
		require.NoError(t, err)
		ast.Inspect(tree, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && s.Sel.Name == "Drop" {
				makers = append(makers, file)
			}
			return true
		})
	}
	require.Equal(t, []string{"drop.go"}, makers)
}
