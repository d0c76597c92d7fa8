package compile_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// What the kernel allows: XT_EXTENSION_MAXNAMELEN less the final zero for chains
// (linux/netfilter/x_tables.h), IPSET_MAXNAMELEN for sets.
const (
	longestChain = 28
	longestSet   = 31
)

// sample is what one node of a random cluster gets for one family.
type sample struct {
	objects *policytest.Objects
	node    string
	family  ruleset.Family
	compile.Output
}

func forSamples(t *testing.T, check func(t *testing.T, s *sample)) {
	t.Helper()
	var s sample
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s, %s, of the objects\n%s", s.node, s.family, s.objects)
		}
	})
	for seed := range uint64(300) {
		o := policytest.RandomDice(seed, 900).Cluster()
		c := o.Cluster()
		for _, node := range nodesOf(c) {
			for _, family := range ruleset.Families() {
				s = sample{o, node, family, compileNode(c, node, family, hostsOf(c, node)...)}
				check(t, &s)
			}
		}
	}
}

func TestNothingAccepts(t *testing.T) {
	forSamples(t, func(t *testing.T, s *sample) {
		for _, rules := range iptables.Desired(&s.Ruleset).Chains {
			for _, rule := range rules {
				require.NotContains(t, rule, "ACCEPT")
				require.NotContains(t, rule, "MARK", "packet marks belong to other programs")
			}
		}
	})
}

func TestNamesFitTheKernel(t *testing.T) {
	forSamples(t, func(t *testing.T, s *sample) {
		for _, chain := range s.Ruleset.Chains {
			require.LessOrEqual(t, len(chain.Name), longestChain, chain.Name)
			require.True(t, strings.HasPrefix(chain.Name, compile.ChainPrefix) || chain.Name == compile.EarlyChain, chain.Name)
		}
		for _, set := range s.Ruleset.Sets {
			require.LessOrEqual(t, len(set.Name), longestSet, set.Name)
			require.True(t, strings.HasPrefix(set.Name, compile.SetPrefix), set.Name)
		}
	})
}

// Every set and chain that a rule names exists, and every set and chain is named by a rule. Only
// the set of other nodes' pods may have no rule yet: it is emptied before its rules go.
func TestReferences(t *testing.T) {
	forSamples(t, func(t *testing.T, s *sample) {
		chains, sets := map[string][]ruleset.Rule{}, map[string]ruleset.SetType{}
		for _, chain := range s.Ruleset.Chains {
			require.NotContains(t, chains, chain.Name, "one chain twice")
			chains[chain.Name] = chain.Rules
		}
		for _, set := range s.Ruleset.Sets {
			require.NotContains(t, sets, set.Name, "one set twice")
			sets[set.Name] = set.Type
			require.Equal(t, s.family, set.Family)
		}
		used := walk(t, &s.Output, chains)
		for name := range chains {
			require.True(t, used[name], "chain %s can't be reached", name)
		}
		for name := range sets {
			require.True(t, used[name] || name == compile.ForeignSet(s.family), "no rule names set %s", name)
		}
		for name := range s.Peers {
			require.Contains(t, sets, name)
		}
	})
}

// walk returns the chains and sets that the hooks lead to.
func walk(t *testing.T, out *compile.Output, chains map[string][]ruleset.Rule) map[string]bool {
	used, todo := map[string]bool{}, []string{}
	for _, hook := range out.Ruleset.Hooks {
		todo = append(todo, hook.Chain)
	}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if used[name] {
			continue
		}
		used[name] = true
		rules, exists := chains[name]
		require.True(t, exists, "chain %s doesn't exist", name)
		for _, rule := range rules {
			if rule.Target != "" {
				todo = append(todo, rule.Target)
			}
			for _, match := range rule.Match {
				switch m := match.(type) {
				case ruleset.SetMatch:
					used[m.Set] = true
				case ruleset.AbsentMatch:
					used[m.Set] = true
				}
			}
		}
	}
	return used
}

// The kernel refuses a port match without a protocol that has ports, more than 15
// slots in one of them, and a set look-up of the wrong number of dimensions.
func TestMatchesAreWellFormed(t *testing.T) {
	withPorts := []uint8{uint8(policy.TCP), uint8(policy.UDP), uint8(policy.SCTP)}
	forSamples(t, func(t *testing.T, s *sample) {
		types := map[string]ruleset.SetType{}
		for _, set := range s.Ruleset.Sets {
			types[set.Name] = set.Type
		}
		for _, chain := range s.Ruleset.Chains {
			for _, rule := range chain.Rules {
				protocol := uint8(0)
				for _, match := range rule.Match {
					switch m := match.(type) {
					case ruleset.ProtocolMatch:
						protocol = m.Protocol
					case ruleset.PortMatch:
						require.Contains(t, withPorts, protocol)
						require.LessOrEqual(t, slots(m), ruleset.MaxPortSlots)
					case ruleset.SetMatch:
						require.Equal(t, types[m.Set], m.Type)
					case ruleset.AddressMatch:
						require.True(t, s.family.Holds(m.Addr))
					}
				}
			}
		}
	})
}

func slots(m ruleset.PortMatch) int {
	sum := 0
	for _, r := range m.Ranges {
		sum += r.Slots()
	}
	return sum
}

// A set of blocks holds disjoint prefixes of its family, none of them /0, which
// ipset can't store.
func TestPrefixSets(t *testing.T) {
	seen := 0
	forSamples(t, func(t *testing.T, s *sample) {
		for _, set := range s.Ruleset.Sets {
			if set.Type != ruleset.HashNet {
				require.Empty(t, set.Members)
				continue
			}
			var prefixes []netip.Prefix
			for member := range set.Members {
				require.True(t, s.family.Holds(member.Prefix.Addr()))
				require.NotZero(t, member.Prefix.Bits())
				for _, other := range prefixes {
					require.False(t, other.Overlaps(member.Prefix), "%s and %s", other, member.Prefix)
				}
				prefixes = append(prefixes, member.Prefix)
			}
			seen++
		}
	})
	require.Greater(t, seen, 50, "the generator makes too few of them")
}

// The output depends on the objects and not on the order in which they came.
func TestOrderDoesNotMatter(t *testing.T) {
	source := rand.New(rand.NewPCG(1, 2))
	forSamples(t, func(t *testing.T, s *sample) {
		shuffled := policytest.Objects{Pods: shuffle(source, s.objects.Pods), Namespaces: s.objects.Namespaces, Policies: shuffle(source, s.objects.Policies)}
		cluster := shuffled.Cluster()
		again := compileNode(cluster, s.node, s.family, hostsOf(cluster, s.node)...)
		require.Empty(t, cmp.Diff(s.Ruleset, again.Ruleset, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})))
		require.Equal(t, s.Isolated, again.Isolated)
		require.Equal(t, s.Local, again.Local)
	})
}

func shuffle[T any](source *rand.Rand, list []T) []T {
	list = slices.Clone(list)
	source.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
	return list
}

// The isolated sets may be ahead of the rules: a packet of a pod that is in them must be dropped
// where no dispatch chain knows the pod.
func TestUnknownIsolatedPodIsDropped(t *testing.T) {
	for _, family := range ruleset.Families() {
		c := readObjects(t, "testdata/allow-all/input.yaml").Cluster()
		out := compileNode(c, "node-1", family)
		tr := newTracer(t, &out.Ruleset, contents(&out, c))
		for _, addrs := range [][2]string{
			{"10.244.1.18", "fd00:1::12"}, // in the dispatch chain of the known pod
			{"10.244.1.3", "fd00:1::3"},   // in a dispatch chain that doesn't exist
		} {
			unknown, outside := netip.MustParseAddr(addrs[0]), netip.MustParseAddr("192.0.2.7")
			if family == ruleset.IPv6 {
				unknown, outside = netip.MustParseAddr(addrs[1]), netip.MustParseAddr("2001:db8::7")
			}
			ingress := &packet{source: outside, destination: unknown, protocol: policy.TCP, port: 80}
			egress := &packet{source: unknown, destination: outside, protocol: policy.TCP, port: 80}
			require.False(t, tr.dropped(compile.ForwardChain, ingress))
			for d := range out.Isolated {
				out.Isolated[d][ruleset.Address(unknown)] = struct{}{}
			}
			require.True(t, tr.dropped(compile.ForwardChain, ingress))
			require.True(t, tr.dropped(compile.ForwardChain, egress))
			require.True(t, tr.dropped(compile.InputChain, egress))
		}
	}
}

// Replicas share one chain; pods whose named ports differ don't.
func TestProfilesAreShared(t *testing.T) {
	for folder, profiles := range map[string]int{"replicas": 2, "named-ports-ingress": 3, "union": 2, "leaves": 2} {
		c := readObjects(t, "testdata/"+folder+"/input.yaml").Cluster()
		out := compileNode(c, "node-1", ruleset.IPv4)
		count := 0
		for _, chain := range out.Ruleset.Chains {
			if strings.HasPrefix(chain.Name, "MOAT-I-") || strings.HasPrefix(chain.Name, "MOAT-E-") {
				count++
			}
		}
		require.Equal(t, profiles, count, folder)
	}
}

// Chains and sets of a family have names of their own, so that a set never
// changes its family.
func TestFamiliesShareNoSet(t *testing.T) {
	c := readObjects(t, "testdata/dual-stack/input.yaml").Cluster()
	v4, v6 := compileNode(c, "node-1", ruleset.IPv4), compileNode(c, "node-1", ruleset.IPv6)
	for _, set := range v4.Ruleset.Sets {
		require.False(t, slices.ContainsFunc(v6.Ruleset.Sets, func(other ruleset.Set) bool { return other.Name == set.Name }), set.Name)
	}
}
