package compile_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// The most important test of the compiler: in any cluster, the fate of any flow
// that crosses the compiled chains, on the sender's node and on the receiver's,
// is what policy.Evaluate says.

func TestCompileAgreesWithEvaluate(t *testing.T) {
	var total fates
	for seed := range uint64(1500) {
		total.add(requireAgreement(t, policytest.RandomDice(seed, 600).Cluster()))
	}
	// A generator whose flows nearly all share one fate would prove little.
	t.Logf("%+v", total)
	require.Greater(t, total.allowedByRule, 50_000)
	require.Greater(t, total.denied, 50_000)
}

func FuzzCompileAgreesWithEvaluate(f *testing.F) {
	for seed := range uint64(10) {
		f.Add(policytest.RandomBytes(seed, 300))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		requireAgreement(t, policytest.NewDice(data).Cluster())
	})
}

// services are the kinds of packets that are sent between any two ends.
var services = []packet{
	{protocol: policy.TCP, port: 80},
	{protocol: policy.TCP, port: 81},
	{protocol: policy.TCP, port: 8080},
	{protocol: policy.TCP, port: 53},
	{protocol: policy.TCP, port: 104},
	{protocol: policy.TCP, port: 65535},
	{protocol: policy.UDP, port: 53},
	{protocol: policy.UDP, port: 7777},
	{protocol: policy.SCTP, port: 7777},
	{protocol: policy.SCTP, port: 80},
	{protocol: policy.ICMP, icmpType: 8},
}

// fates counts flows.
type fates struct{ open, allowedByRule, denied int }

func (f *fates) add(other fates) {
	f.open += other.open
	f.allowedByRule += other.allowedByRule
	f.denied += other.denied
}

func (f *fates) count(v policy.Verdict) {
	switch {
	case !v.Allowed():
		f.denied++
	case byRule(v.Egress) || byRule(v.Ingress):
		f.allowedByRule++
	default:
		f.open++
	}
}

func byRule(decisions policy.Decisions) bool {
	return slices.ContainsFunc(decisions, func(d policy.Decision) bool { return d.Reason == policy.AllowedByRule })
}

// requireAgreement sends every service between all ends of the cluster.
func requireAgreement(t *testing.T, o *policytest.Objects) (seen fates) {
	t.Helper()
	n := newNetwork(t, o)
	for _, from := range n.ends {
		for _, to := range n.ends {
			if !n.filtered(from, to) {
				continue
			}
			for _, p := range services {
				p.source, p.destination = from.addr, to.addr
				if p.protocol == policy.ICMP && from.addr.Is6() {
					p.protocol, p.icmpType = policy.ICMPv6, 128
				}
				seen.count(n.requireFate(from, to, p))
			}
		}
	}
	return seen
}

// network is a cluster with the compiled rules of its nodes.
type network struct {
	t       *testing.T
	objects *policytest.Objects
	cluster *policy.Cluster
	ends    []end
	tracers map[hookPoint]*tracer
	rules   map[hookPoint]*ruleset.Ruleset
}

// end is where packets come from or go to: a pod, a node or the rest of the world.
type end struct {
	addr netip.Addr
	node string // empty: outside of the cluster
	pod  bool   // false: the node itself
}

type hookPoint struct {
	node   string
	family ruleset.Family
}

func newNetwork(t *testing.T, o *policytest.Objects) *network {
	n := &network{t: t, objects: o, cluster: o.Cluster(), tracers: map[hookPoint]*tracer{}, rules: map[hookPoint]*ruleset.Ruleset{}}
	for i := range policytest.NodeCount {
		n.ends = append(n.ends, end{addr: netip.MustParseAddr(policytest.NodeAddress(i)), node: policytest.NodeName(i)})
		for _, family := range ruleset.Families() {
			out := compileNode(n.cluster, policytest.NodeName(i), family)
			point := hookPoint{policytest.NodeName(i), family}
			n.rules[point] = &out.Ruleset
			n.tracers[point] = newTracer(t, &out.Ruleset, contents(&out, n.cluster))
		}
	}
	for _, pod := range n.cluster.Pods {
		for _, addr := range pod.Addrs {
			n.ends = append(n.ends, end{addr: addr, node: pod.Node, pod: true})
		}
	}
	for _, outside := range []string{"192.0.2.7", "200.0.0.1", "2001:db8::7", "fd00:1::77"} {
		n.ends = append(n.ends, end{addr: netip.MustParseAddr(outside)})
	}
	return n
}

// filtered leaves out what the chains never see or must not judge: two families,
// traffic between ends that are no pods, and what a node sends to its own pods.
func (n *network) filtered(from, to end) bool {
	ownPod := !from.pod && from.node != "" && from.node == to.node
	return from.addr.Is4() == to.addr.Is4() && (from.pod || to.pod) && !ownPod
}

// requireFate compares, and returns what Evaluate says.
func (n *network) requireFate(from, to end, p packet) policy.Verdict {
	flow := policy.Flow{Source: p.source, Destination: p.destination, Protocol: p.protocol, Port: p.port}
	verdict := n.cluster.Evaluate(flow)
	if arrives := n.arrives(from, to, p); arrives != verdict.Allowed() {
		require.FailNow(n.t, "the chains disagree with Evaluate", "flow %+v\narrives: %v\nEvaluate: %v\n%s\n%s",
			flow, arrives, verdict.Allowed(), n.objects, n.dump(from, to))
	}
	return verdict
}

// arrives sends the packet through the chains of the nodes on its way.
func (n *network) arrives(from, to end, p packet) bool {
	family := familyOf(p.source)
	if from.pod && from.node == to.node {
		return !n.tracers[hookPoint{from.node, family}].dropped(hookOf(to), p)
	}
	if from.pod && n.tracers[hookPoint{from.node, family}].dropped(compile.ForwardChain, p) {
		return false
	}
	return to.node == "" || !n.tracers[hookPoint{to.node, family}].dropped(hookOf(to), p)
}

// hookOf is the chain that a packet meets on the node that it is for.
func hookOf(to end) string {
	if to.pod {
		return compile.ForwardChain
	}
	return compile.InputChain
}

func familyOf(addr netip.Addr) ruleset.Family {
	if addr.Is4() {
		return ruleset.IPv4
	}
	return ruleset.IPv6
}

func (n *network) dump(from, to end) string {
	var text strings.Builder
	for _, node := range []string{from.node, to.node} {
		if rules := n.rules[hookPoint{node, familyOf(from.addr)}]; rules != nil {
			for chain, lines := range iptables.Desired(rules).Chains {
				fmt.Fprintf(&text, "%s %s\n  %s\n", node, chain, strings.Join(lines, "\n  "))
			}
		}
	}
	return text.String()
}
