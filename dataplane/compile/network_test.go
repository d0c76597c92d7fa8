package compile_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/iptables"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// network is a cluster with the compiled rules of its nodes.
type network struct {
	t       testing.TB
	objects *policytest.Objects
	cluster *policy.Cluster
	nodes   map[hookPoint]*nodeRules
}

type hookPoint struct {
	node   string
	family ruleset.Family
}

// nodeRules is what a node has in its kernel for one family.
type nodeRules struct {
	compile.Output
	tracer *tracer
}

func newNetwork(t testing.TB, o *policytest.Objects) *network {
	n := &network{t: t, objects: o, cluster: o.Cluster(), nodes: map[hookPoint]*nodeRules{}}
	for i := range policytest.NodeCount {
		name := policytest.NodeName(i)
		for _, family := range ruleset.Families() {
			out := compileNode(n.cluster, name, family, hostsOf(n.cluster, name)...)
			n.nodes[hookPoint{name, family}] = &nodeRules{out, newTracer(t, &out.Ruleset, contents(&out, n.cluster))}
		}
	}
	return n
}

// isolated reports whether a policy isolates the sender for egress or the receiver for ingress.
func (n *network) isolated(from, to policytest.End) bool {
	in := func(e policytest.End, d policy.Direction) bool {
		if !e.Pod {
			return false
		}
		_, isolated := n.at(e, from.Addr).Isolated[d][ruleset.Address(e.Addr)]
		return isolated
	}
	return in(from, policy.Egress) || in(to, policy.Ingress)
}

func (n *network) at(e policytest.End, addr netip.Addr) *nodeRules {
	family := ruleset.IPv6
	if addr.Is4() {
		family = ruleset.IPv4
	}
	return n.nodes[hookPoint{e.Node, family}]
}

// requireFate compares, and returns what Evaluate says.
func (n *network) requireFate(from, to policytest.End, s policytest.Service) bool {
	flow := policy.Flow{Source: from.Addr, Destination: to.Addr, Protocol: s.Protocol, Port: s.Port}
	allowed := n.cluster.Evaluate(flow).Allowed()
	p := packet{source: from.Addr, destination: to.Addr, protocol: s.Protocol, port: s.Port, icmpType: s.Type, translated: from.Addr == to.Addr}
	if arrives := n.arrives(from, to, &p); arrives != allowed {
		require.FailNow(n.t, "the chains disagree with Evaluate", "flow %+v\narrives: %v\nEvaluate: %v\n%s\n%s",
			flow, arrives, allowed, n.objects, n.dump(from, to))
	}
	return allowed
}

// arrives sends the packet through the chains of the nodes on its way. What a node
// sends to its own pods meets none: there is no hook in OUTPUT.
func (n *network) arrives(from, to policytest.End, p *packet) bool {
	if !from.Pod && from.Node != "" && from.Node == to.Node {
		return true
	}
	if from.Pod && from.Node != to.Node && n.dropped(from, compile.ForwardChain, from, to, p) {
		return false
	}
	return to.Node == "" || !n.dropped(to, hookOf(to), from, to, p)
}

// dropped reports whether a chain of the node of at drops the packet. The node's
// pods are behind its bridge, all else isn't.
func (n *network) dropped(at policytest.End, chain string, from, to policytest.End, p *packet) bool {
	p.in, p.out = "", ""
	if from.Pod && from.Node == at.Node {
		p.in = bridge
	}
	if to.Pod && to.Node == at.Node {
		p.out = bridge
	}
	return n.at(at, p.source).tracer.dropped(chain, p)
}

// hookOf is the chain that a packet meets on the node that it is for.
func hookOf(to policytest.End) string {
	if to.Pod {
		return compile.ForwardChain
	}
	return compile.InputChain
}

func (n *network) dump(from, to policytest.End) string {
	var text strings.Builder
	for _, end := range []policytest.End{from, to} {
		if rules := n.at(end, from.Addr); rules != nil {
			for chain, lines := range iptables.Desired(&rules.Ruleset).Chains {
				fmt.Fprintf(&text, "%s %s\n  %s\n", end.Node, chain, strings.Join(lines, "\n  "))
			}
		}
	}
	return text.String()
}
