package compile_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// mostCompared is how many rules of the tree a packet to one of 250 pods in a row is
// compared with at most: three branches of four, and a dispatch chain of four pods with two
// rules each.
const mostCompared = 3*4 + 4*2

// Every pod's packets find its profile, whatever the addresses have in common. Packets of an
// address that isn't there find the rule at the end. Each pod allows a port of its own.
func TestTree(t *testing.T) {
	source := rand.New(rand.NewPCG(5, 6))
	for name, addrs := range map[string][]netip.Addr{
		"none":                       nil,
		"one":                        inARow(1),
		"a full chain":               inARow(8),
		"one more":                   inARow(9),
		"a full node":                inARow(250),
		"the low bytes are the same": spreadBy(250, func(i int) [4]byte { return [4]byte{10, byte(i), 7, 7} }),
		"only the first byte":        spreadBy(200, func(i int) [4]byte { return [4]byte{byte(i), 7, 7, 7} }),
		"ever fewer at a branch":     spreadBy(32, func(i int) (b [4]byte) { binary.BigEndian.PutUint32(b[:], 1<<i); return b }),
		"at random": spreadBy(1000, func(int) (b [4]byte) {
			binary.BigEndian.PutUint32(b[:], source.Uint32())
			return b
		}),
		"IPv6": spreadV6(250, func(i int) [16]byte { return [16]byte{0: 0xfd, 8: byte(i), 15: 7} }),
		"IPv6, ever fewer at a branch": spreadV6(120, func(i int) (b [16]byte) {
			b[0], b[15-i/8] = 0xfd, 1<<(i%8)
			return b
		}),
	} {
		t.Run(name, func(t *testing.T) {
			family := ruleset.IPv4
			if len(addrs) > 0 && addrs[0].Is6() {
				family = ruleset.IPv6
			}
			out := compile.Compile(compile.Host{}, family, endpointsOf(addrs), compile.Links{}, compile.Guard{})
			sets := map[string]ruleset.Members{}
			for d := range out.Isolated {
				sets[compile.IsolatedSet(family, policy.Direction(d))] = out.Isolated[d]
			}
			tr := newTracer(t, &out.Ruleset, sets)
			for _, chain := range out.Ruleset.Chains {
				require.LessOrEqual(t, len(chain.Name), longestChain)
			}
			for i, addr := range addrs {
				for _, port := range []int{i, i + 1} {
					p := &packet{source: netip.MustParseAddr("192.0.2.7"), destination: addr, protocol: policy.TCP, port: uint16(1 + port)}
					require.Equal(t, port != i, tr.dropped(compile.ForwardChain, p), "pod %s, port of pod %d", addr, port)
				}
				require.False(t, tr.dropped(compile.ForwardChain, &packet{source: addr, destination: addr, protocol: policy.UDP, translated: true}), "itself")
				near := addr.Next()
				if !near.IsValid() || slices.Contains(addrs, near) {
					continue
				}
				p := &packet{source: netip.MustParseAddr("192.0.2.7"), destination: near, protocol: policy.TCP, port: uint16(1 + i)}
				require.False(t, tr.dropped(compile.ForwardChain, p), "%s isn't isolated", near)
				require.True(t, tr.dropped(compile.IngressChain, p), "%s is in no dispatch chain", near)
			}
		})
	}
}

// What a packet costs on a full node is bounded.
func TestTreeIsFlat(t *testing.T) {
	addrs := inARow(250)
	out := compile.Compile(compile.Host{}, ruleset.IPv4, endpointsOf(addrs), compile.Links{}, compile.Guard{})
	chains := map[string][]ruleset.Rule{}
	for _, chain := range out.Ruleset.Chains {
		chains[chain.Name] = chain.Rules
	}
	tr := newTracer(t, &ruleset.Ruleset{}, nil)
	most := 0
	for _, addr := range addrs {
		p := &packet{source: netip.MustParseAddr("192.0.2.7"), destination: addr, protocol: policy.TCP}
		compared := 0
		for name := compile.IngressChain; len(name) <= len(compile.IngressChain)+4 && name[:len(compile.IngressChain)] == compile.IngressChain; {
			for _, rule := range chains[name] {
				compared++
				matches := true
				for _, match := range rule.Match {
					matches = matches && tr.matcher(match)(p)
				}
				if matches {
					name = rule.Target
					break
				}
			}
		}
		most = max(most, compared)
	}
	require.LessOrEqual(t, most, mostCompared)
	require.Greater(t, most, 8)
}

func inARow(n int) []netip.Addr {
	return spreadBy(n, func(i int) [4]byte { return [4]byte{10, 244, 1, byte(1 + i)} })
}

func spreadBy(n int, addr func(int) [4]byte) []netip.Addr {
	var addrs []netip.Addr
	for i := range n {
		addrs = append(addrs, netip.AddrFrom4(addr(i)))
	}
	return addrs
}

func spreadV6(n int, addr func(int) [16]byte) []netip.Addr {
	var addrs []netip.Addr
	for i := range n {
		addrs = append(addrs, netip.AddrFrom16(addr(i)))
	}
	return addrs
}

// endpointsOf returns pods with these addresses, of which each may be reached at one
// port: the first at 1, and so on.
func endpointsOf(addrs []netip.Addr) []policy.Endpoint {
	var pods []*policy.Pod
	var policies []*policy.Policy
	for i, addr := range addrs {
		labels := map[string]string{"pod": fmt.Sprint(i)}
		pods = append(pods, &policy.Pod{Namespace: "a", Name: fmt.Sprint(i), Labels: labels, Addrs: []netip.Addr{addr}, Subject: true})
		port := intstr.FromInt(1 + i)
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: fmt.Sprint(i)}}
		np.Spec.PodSelector.MatchLabels = labels
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: &port}}}}
		policies = append(policies, policy.ParseNetworkPolicy(np))
	}
	return policy.Endpoints(pods, policies)
}
