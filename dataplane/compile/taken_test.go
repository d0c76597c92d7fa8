package compile_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// short makes names of so few bits that many stand for several contents, as an attacker
// would look for.
func short(content compile.Content) string { return string('A' + content[0]%3) }

// compileShort is compileNode with such names.
func compileShort(c *policy.Cluster, node string, family ruleset.Family) compile.Output {
	local := podsOf(c, node)
	endpoints := policy.Endpoints(local, c.Policies)
	guard := compile.Guard{PodCIDRs: hostsOf(c, node), Local: addrsOf(local)}
	return compile.CompileNaming(short, compile.Host{}, family, endpoints, bridgeOf(endpoints), guard)
}

// Where a name stands for another content already, a rule that needs it allows nothing: a flow
// that arrives is one that the policies allow. Without the comparison of contents a pod would
// have another one's chain, and a rule another one's peers.
func TestANameThatIsTakenClosesAndNeverOpens(t *testing.T) {
	const every = 3 // of so many flows one is sent
	clashes, denied, arrived, turn := 0, 0, 0, 0
	for seed := range uint64(40) {
		o := policytest.RandomDice(seed, 900).Cluster()
		n := &network{t: t, objects: o, cluster: o.Cluster(), nodes: map[hookPoint]*nodeRules{}}
		for i := range policytest.NodeCount {
			name := policytest.NodeName(i)
			for _, family := range ruleset.Families() {
				out := compileShort(n.cluster, name, family)
				clashes += len(out.Clashing)
				n.nodes[hookPoint{name, family}] = &nodeRules{out, newTracer(t, &out.Ruleset, contents(&out, n.cluster))}
			}
		}
		for _, from := range o.Ends() {
			for _, to := range o.Ends() {
				if !filtered(from, to) {
					continue
				}
				for _, service := range o.Services() {
					if turn++; turn%every != 0 {
						continue
					}
					s := service.For(from.Addr)
					flow := policy.Flow{Source: from.Addr, Destination: to.Addr, Protocol: s.Protocol, Port: s.Port}
					p := packet{source: from.Addr, destination: to.Addr, protocol: s.Protocol, port: s.Port, icmpType: s.Type}
					switch allowed, arrives := n.cluster.Evaluate(flow).Allowed(), n.arrives(from, to, &p); {
					case arrives && !allowed:
						require.FailNow(t, "a name that is taken opens", "seed %d, flow %+v\n%s", seed, flow, n.dump(from, to))
					case arrives:
						arrived++
					case allowed:
						denied++
					}
				}
			}
		}
	}
	t.Logf("%d policies without a name, %d flows arrive, %d are allowed and denied", clashes, arrived, denied)
	require.Positive(t, clashes)
	require.Positive(t, denied)
	require.Positive(t, arrived)
}

// What the kernel holds keeps its names until it is gone: a set keeps its elements, and rules
// that look it up, until after the new rules are there.
func TestANameInTheKernelIsTaken(t *testing.T) {
	o := policytest.RandomDice(7, 900).Cluster()
	c := o.Cluster()
	names := 0
	for _, node := range nodesOf(c) {
		endpoints := policy.Endpoints(podsOf(c, node), c.Policies)
		out := compile.Compile(compile.Host{}, ruleset.IPv4, endpoints, bridgeOf(endpoints), compile.Guard{})
		require.Empty(t, out.Clashing)
		again := compile.Compile(compile.Host{Held: out.Names}, ruleset.IPv4, endpoints, bridgeOf(endpoints), compile.Guard{})
		require.Empty(t, again.Clashing, "the same content")
		require.Equal(t, iptables.Desired(&out.Ruleset), iptables.Desired(&again.Ruleset))

		names += len(out.Names)
		for name := range out.Names {
			held := compile.Names{name: compile.Content{}}
			beside := compile.Compile(compile.Host{Held: held}, ruleset.IPv4, endpoints, bridgeOf(endpoints), compile.Guard{})
			require.NotEmpty(t, beside.Clashing, name)
			require.NotContains(t, beside.Names, name)
			require.NotContains(t, beside.Peers, name)
			for _, chain := range beside.Ruleset.Chains {
				require.NotEqual(t, name, chain.Name)
			}
			for _, set := range beside.Ruleset.Sets {
				require.NotEqual(t, name, set.Name)
			}
		}
	}
	require.Positive(t, names)
}
