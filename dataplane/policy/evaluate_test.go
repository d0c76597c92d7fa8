package policy_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/policy"
)

func TestEvaluatePeers(t *testing.T) {
	runRows(t, []row{
		{
			name:     "one peer with podSelector and namespaceSelector is AND",
			policies: []string{dbIngress(`{from: [{podSelector: {matchLabels: {role: web}}, namespaceSelector: {matchLabels: {team: blue}}}]}`)},
			pass:     []string{"blue/web db TCP/80"},
			drop:     []string{"web db TCP/80", "blue/db db TCP/80", "green/new-owner db TCP/80"},
		},
		{
			name:     "separate list items are OR",
			policies: []string{dbIngress(`{from: [{podSelector: {matchLabels: {role: web}}}, {namespaceSelector: {matchLabels: {team: blue}}}]}`)},
			pass:     []string{"blue/web db TCP/80", "web db TCP/80", "blue/db db TCP/80"},
			drop:     []string{"green/new-owner db TCP/80", "db2 db TCP/80"},
		},
		{
			name:     "podSelector alone means the own namespace",
			policies: []string{dbIngress(`{from: [{podSelector: {matchLabels: {role: web}}}]}`)},
			pass:     []string{"web db TCP/80", "leaving db TCP/80"},
			drop:     []string{"blue/web db TCP/80", "lost/web db TCP/80", "db2 db TCP/80"},
		},
		{
			name:     "podSelector {} means every pod of the own namespace",
			policies: []string{dbIngress(`{from: [{podSelector: {}}]}`)},
			pass:     []string{"web db TCP/80", "db2 db TCP/80"},
			drop:     []string{"blue/web db TCP/80", "192.0.2.7 db TCP/80"},
		},
		{
			name:     "namespaceSelector {} means every namespace",
			policies: []string{dbIngress(`{from: [{namespaceSelector: {}}]}`)},
			pass:     []string{"web db TCP/80", "blue/web db TCP/80", "green/new-owner db TCP/80", "lost/web db TCP/80"},
			drop:     []string{"192.0.2.7 db TCP/80"},
		},
		{
			name:     "a namespace whose labels are unknown matches no requirement, negative ones neither",
			policies: []string{dbIngress(`{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [green]}]}}]}`)},
			pass:     []string{"web db TCP/80", "blue/web db TCP/80"},
			drop:     []string{"green/new-owner db TCP/80", "lost/web db TCP/80"},
		},
		{
			name:     "from absent: no restriction of peers",
			policies: []string{dbIngress(`{ports: [{port: 80}]}`)},
			pass:     []string{"web db TCP/80", "192.0.2.7 db TCP/80", "green/new-owner db TCP/80"},
			drop:     []string{"web db TCP/81", "192.0.2.7 db TCP/81"},
		},
		{
			name:     "from and ports empty: no restriction",
			policies: []string{dbIngress(`{from: [], ports: []}`)},
			pass:     []string{"web db TCP/80", "192.0.2.7 db UDP/53", "192.0.2.7 db ICMP"},
		},
		{
			name:     "kubernetes.io/metadata.name works as any label",
			policies: []string{dbIngress(`{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: blue}}}]}`)},
			pass:     []string{"blue/web db TCP/80"},
			drop:     []string{"web db TCP/80", "lost/web db TCP/80"},
		},
		{
			name:     "the walk-through's ports item is a second rule",
			policies: []string{dbIngress(`{from: [{podSelector: {matchLabels: {role: web}}}]}, {ports: [{protocol: TCP, port: 80}]}`)},
			pass:     []string{"web db ICMP", "web db TCP/5432", "blue/db db TCP/80", "192.0.2.7 db TCP/80"},
			drop:     []string{"blue/db db ICMP", "192.0.2.7 db TCP/5432"},
		},
	})
}

func TestEvaluateOperators(t *testing.T) {
	match := func(expression string) []string {
		return []string{dbIngress(`{from: [{podSelector: {matchExpressions: [` + expression + `]}}]}`)}
	}
	runRows(t, []row{
		{name: "In", policies: match(`{key: tier, operator: In, values: [front, back]}`), pass: []string{"web db TCP/1"}, drop: []string{"leaving db TCP/1"}},
		{name: "NotIn matches a pod without the label", policies: match(`{key: tier, operator: NotIn, values: [front]}`), pass: []string{"leaving db TCP/1"}, drop: []string{"web db TCP/1"}},
		{name: "Exists", policies: match(`{key: tier, operator: Exists}`), pass: []string{"web db TCP/1"}, drop: []string{"leaving db TCP/1"}},
		{name: "DoesNotExist", policies: match(`{key: tier, operator: DoesNotExist}`), pass: []string{"leaving db TCP/1"}, drop: []string{"web db TCP/1"}},
		{name: "all of several", policies: match(`{key: role, operator: Exists}, {key: tier, operator: DoesNotExist}`), pass: []string{"leaving db TCP/1"}, drop: []string{"web db TCP/1"}},
	})
}

func TestEvaluateIsolation(t *testing.T) {
	runRows(t, []row{
		{
			name: "no policy: open",
			pass: []string{"web db TCP/80", "192.0.2.7 db UDP/9", "db 192.0.2.7 ICMP"},
		},
		{
			name:     "rule list empty, type set: isolates and allows nothing",
			policies: []string{`{podSelector: {}, policyTypes: [Ingress, Egress]}`},
			pass:     []string{"blue/web green/new-owner TCP/80", "blue/web 192.0.2.7 TCP/80"},
			drop:     []string{"web db TCP/80", "blue/web db TCP/80", "192.0.2.7 db ICMP", "db 192.0.2.7 ICMP", "db blue/web TCP/80"},
		},
		{
			name:     "ingress: [{}] allows all",
			policies: []string{dbIngress(`{}`)},
			pass:     []string{"192.0.2.7 db ICMP", "web db SCTP/9", "fd00::3 fd00::1 TCP/80"},
		},
		{
			name:     "policyTypes: rules of a direction that isn't listed count for nothing",
			policies: []string{`{podSelector: {}, policyTypes: [Egress], ingress: [{ports: [{port: 80}]}], egress: [{}]}`},
			pass:     []string{"192.0.2.7 db TCP/81"},
		},
		{
			name:     "a selector that matches no pod still isolates",
			policies: []string{dbIngress(`{from: [{podSelector: {matchLabels: {role: ghost}}}]}`)},
			drop:     []string{"web db TCP/80", "192.0.2.7 db TCP/80"},
		},
		{
			name:     "unreadable parts of a rule allow nothing",
			policies: []string{dbIngress(`{from: [{ipBlock: {cidr: nonsense}}]}, {ports: [{port: 0}]}`)},
			drop:     []string{"web db TCP/80", "192.0.2.7 db TCP/80", "web db ICMP"},
		},
		{
			name:     "a policy doesn't reach other namespaces",
			policies: []string{`{podSelector: {}, policyTypes: [Ingress]}`},
			pass:     []string{"web blue/db TCP/80"},
		},
		{
			name: "several policies are united, in any order",
			policies: []string{
				dbIngress(`{from: [{podSelector: {matchLabels: {role: web}}}], ports: [{port: 80}]}`),
				`{podSelector: {}, policyTypes: [Ingress]}`,
				dbIngress(`{from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 443}]}`),
			},
			pass: []string{"web db TCP/80", "192.0.2.7 db TCP/443"},
			drop: []string{"web db TCP/443", "192.0.2.7 db TCP/80", "db web TCP/80"},
		},
		{
			name:     "the sender's egress and the receiver's ingress must both allow",
			policies: []string{webEgress(`{to: [{podSelector: {matchLabels: {role: db}}}], ports: [{port: 80}, {port: 81}]}`), dbIngress(`{ports: [{port: 80}, {port: 82}]}`)},
			pass:     []string{"web db TCP/80"},
			drop:     []string{"web db TCP/81", "web db TCP/82", "web db TCP/83"},
		},
	})
}

func TestEvaluatePorts(t *testing.T) {
	runRows(t, []row{
		{
			name:     "protocol nil is TCP",
			policies: []string{dbIngress(`{ports: [{port: 80}]}`)},
			pass:     []string{"web db TCP/80"},
			drop:     []string{"web db UDP/80", "web db SCTP/80"},
		},
		{
			name:     "port nil is every port of that protocol and no other protocol; no ICMP",
			policies: []string{dbIngress(`{ports: [{protocol: UDP}]}`)},
			pass:     []string{"web db UDP/1", "web db UDP/65535"},
			drop:     []string{"web db TCP/1", "web db ICMP", "web db SCTP/1"},
		},
		{
			name:     "endPort is inclusive",
			policies: []string{dbIngress(`{ports: [{port: 100, endPort: 200}]}`)},
			pass:     []string{"web db TCP/100", "web db TCP/150", "web db TCP/200"},
			drop:     []string{"web db TCP/99", "web db TCP/201", "web db UDP/150"},
		},
		{
			name:     "SCTP follows the same rules",
			policies: []string{dbIngress(`{ports: [{protocol: SCTP, port: 7777}]}`)},
			pass:     []string{"web db SCTP/7777"},
			drop:     []string{"web db SCTP/7778", "web db TCP/7777"},
		},
		{
			name:     "named port, ingress: the number of the target pod, with its protocol",
			policies: []string{dbIngress(`{ports: [{port: http}, {port: dns, protocol: UDP}]}`)},
			pass:     []string{"web db TCP/8080", "web db2 TCP/9090", "web db UDP/53"},
			drop:     []string{"web db TCP/9090", "web db2 TCP/8080", "web db UDP/8080", "web db TCP/53", "web db2 UDP/53"},
		},
		{
			name:     "named port, egress: pairs of address and port, not a union of numbers",
			policies: []string{webEgress(`{to: [{podSelector: {}}], ports: [{port: http}]}`)},
			pass:     []string{"web db TCP/8080", "web db2 TCP/9090"},
			drop:     []string{"web db TCP/9090", "web db2 TCP/8080", "web blue/db TCP/8080", "web 192.0.2.7 TCP/8080"},
		},
		{
			name:     "named port, egress to any peer and to a block",
			policies: []string{webEgress(`{ports: [{port: http}]}, {to: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: dns, protocol: UDP}]}`)},
			pass:     []string{"web db TCP/8080", "web blue/db TCP/8080", "web lost/web TCP/8080", "web db UDP/53"},
			drop:     []string{"web 192.0.2.7 TCP/8080", "web db2 UDP/53", "web 10.9.9.9 UDP/53"},
		},
		{
			name:     "a name that no pod serves isolates",
			policies: []string{dbIngress(`{ports: [{port: unserved}]}`), webEgress(`{ports: [{port: unserved}]}`)},
			drop:     []string{"192.0.2.7 db TCP/80", "192.0.2.7 db TCP/0", "web blue/db TCP/8080"},
		},
		{
			name:     "egress to a Service is judged by the pod's address and target port",
			policies: []string{webEgress(`{to: [{podSelector: {matchLabels: {role: db}}}], ports: [{port: 8080}]}`)},
			pass:     []string{"web db TCP/8080"},
			drop:     []string{"web db TCP/80"},
		},
	})
}

func TestEvaluateBlocks(t *testing.T) {
	runRows(t, []row{
		{
			name:     "ipBlock matches pod addresses too",
			policies: []string{dbIngress(`{from: [{ipBlock: {cidr: 10.0.1.0/24}}]}`)},
			pass:     []string{"blue/web db TCP/80"},
			drop:     []string{"web db TCP/80"},
		},
		{
			name:     "except subtracts only within its own block",
			policies: []string{dbIngress(`{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/16]}}, {ipBlock: {cidr: 10.0.1.0/24}}, {podSelector: {matchLabels: {role: web}}}]}`)},
			pass:     []string{"10.9.0.1 db TCP/80", "blue/web db TCP/80", "web db TCP/80"},
			drop:     []string{"db2 db TCP/80", "10.0.2.1 db TCP/80", "192.0.2.7 db TCP/80"},
		},
		{
			name:     "a CIDR that isn't canonical is masked",
			policies: []string{dbIngress(`{from: [{ipBlock: {cidr: 192.0.2.9/24, except: [192.0.2.130/25]}}]}`)},
			pass:     []string{"192.0.2.7 db TCP/80", "192.0.2.127 db TCP/80"},
			drop:     []string{"192.0.2.128 db TCP/80", "192.0.3.1 db TCP/80"},
		},
		{
			name:     "each family has its own blocks",
			policies: []string{dbIngress(`{from: [{ipBlock: {cidr: "::/0"}}]}`)},
			pass:     []string{"fd00::3 fd00::1 TCP/80", "2001:db8::7 fd00::1 TCP/80"},
			drop:     []string{"web db TCP/80", "192.0.2.7 db TCP/80"},
		},
		{
			name:     "0.0.0.0/0",
			policies: []string{dbIngress(`{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}`)},
			pass:     []string{"web db ICMP", "192.0.2.7 db TCP/80"},
			drop:     []string{"fd00::3 fd00::1 TCP/80"},
		},
	})
}

func TestEvaluateOwnersOfAddresses(t *testing.T) {
	runRows(t, []row{
		{
			name:     "pod to itself is always allowed",
			policies: []string{`{podSelector: {}, policyTypes: [Ingress, Egress]}`},
			pass:     []string{"db db TCP/80", "fd00::1 fd00::1 ICMP"},
			drop:     []string{"db db2 TCP/80"},
		},
		{
			name:     "a hostNetwork pod is never selected and never a peer",
			policies: []string{webEgress(``), dbIngress(`{from: [{podSelector: {matchLabels: {role: web}}}, {ipBlock: {cidr: 192.168.0.1/32}}], ports: [{port: 80}]}, {from: [{podSelector: {}}]}`)},
			pass:     []string{"192.168.0.1 db TCP/80", "192.168.0.1 192.0.2.7 TCP/80"},
			drop:     []string{"192.168.0.1 db TCP/81"},
		},
		{
			name:     "the next owner of an ended pod's address inherits nothing",
			policies: []string{`{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}]}`},
			pass:     []string{"blue/web green/new-owner TCP/80", "green/new-owner blue/web TCP/80"},
			drop:     []string{"green/new-owner db TCP/80"},
		},
		{
			name:     "a Terminating pod stays enforced and stays a peer",
			policies: []string{webEgress(`{ports: [{port: 80}]}`), dbIngress(`{from: [{podSelector: {matchLabels: {role: web}}}]}`)},
			pass:     []string{"leaving db TCP/80"},
			drop:     []string{"leaving db TCP/81", "leaving 192.0.2.7 TCP/81"},
		},
		{
			name:     "dual-stack: selectors hold for both addresses of a pod",
			policies: []string{dbIngress(`{from: [{podSelector: {matchLabels: {role: web}}}]}`)},
			pass:     []string{"fd00::3 fd00::1 TCP/80", "web db TCP/80"},
			drop:     []string{"fd00::4 fd00::1 TCP/80"},
		},
	})
}

func TestEvaluateNodes(t *testing.T) {
	c := newCluster(t, dbIngress(``), webEgress(``))
	for _, pod := range c.Pods {
		pod.Node = "here"
	}
	c.Nodes = map[netip.Addr]string{netip.MustParseAddr("192.168.0.1"): "here", netip.MustParseAddr("192.168.0.2"): "elsewhere"}
	verdict := func(text string) policy.Verdict { return c.Evaluate(parseFlow(t, c, text)) }

	require.Equal(t, policy.FromItsNode, verdict("192.168.0.1 db TCP/80").Ingress[0].Reason, "probes always pass")
	require.Equal(t, policy.Denied, verdict("192.168.0.2 db TCP/80").Ingress[0].Reason, "another node is an address like others")
	require.Equal(t, policy.Denied, verdict("web 192.168.0.1 TCP/10250").Egress[0].Reason, "a pod's way to its own node is filtered")
}

func TestEvaluateSharedAddresses(t *testing.T) {
	pod := func(namespace, name, role string, terminating bool) *policy.Pod {
		return &policy.Pod{
			Namespace: namespace, Name: name, Labels: map[string]string{"role": role}, Subject: true, Terminating: terminating,
			Addrs: []netip.Addr{netip.MustParseAddr("10.0.7.7")},
		}
	}
	policies := []string{dbIngress(`{ports: [{port: 80}, {port: 81}]}`), `{podSelector: {matchLabels: {role: web}}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}, {port: 82}]}]}`,
		`{podSelector: {matchLabels: {role: guard}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {role: db}}}]}]}`}
	cluster := func(pods ...*policy.Pod) *policy.Cluster {
		c := newCluster(t, policies...)
		c.Pods = append(pods, &policy.Pod{Namespace: "default", Name: "guard", Labels: map[string]string{"role": "guard"}, Subject: true, Addrs: []netip.Addr{netip.MustParseAddr("10.0.8.8")}})
		return c
	}
	passes := func(c *policy.Cluster, text string) bool { return c.Evaluate(parseFlow(t, c, text)).Allowed() }

	c := cluster(pod("default", "old", "db", true), pod("default", "new", "web", false))
	require.True(t, passes(c, "192.0.2.7 10.0.7.7 TCP/80"))
	require.False(t, passes(c, "192.0.2.7 10.0.7.7 TCP/82"), "a Terminating pod stays enforced, whichever pod shows its address")
	require.False(t, passes(c, "192.0.2.7 10.0.7.7 TCP/81"))
	require.False(t, passes(c, "10.0.7.7 10.0.8.8 TCP/80"), "and is a peer no more")

	c = cluster(pod("default", "old", "db", true))
	require.True(t, passes(c, "192.0.2.7 10.0.7.7 TCP/81"), "a Terminating pod stays enforced")
	require.True(t, passes(c, "10.0.7.7 10.0.8.8 TCP/80"), "and stays a peer")

	c = cluster(pod("default", "a", "db", false), pod("default", "b", "web", false))
	require.True(t, passes(c, "192.0.2.7 10.0.7.7 TCP/80"), "of two live pods both must allow")
	require.False(t, passes(c, "192.0.2.7 10.0.7.7 TCP/81"))
	require.False(t, passes(c, "192.0.2.7 10.0.7.7 TCP/82"))
	require.False(t, passes(c, "10.0.7.7 10.0.8.8 TCP/80"), "and their address is no pod's")
}

// Of pods that show one address, selectors see the one that has it from its own node's
// ranges, then the one that stays. The policies of all hold.
func TestOwnersOfASharedAddress(t *testing.T) {
	const leaving = true
	addr := netip.MustParseAddr("10.0.1.7")
	pod := func(name, node string, terminating bool) *policy.Pod {
		return &policy.Pod{Name: name, Node: node, Subject: true, Terminating: terminating, Addrs: []netip.Addr{addr}}
	}
	host := func(node string, terminating bool) *policy.Pod {
		return &policy.Pod{Name: "host", Node: node, Terminating: terminating, NodeAddrs: []netip.Addr{addr}}
	}
	ranges := policy.Ranges{"one": {netip.MustParsePrefix("10.0.1.0/24")}, "two": {netip.MustParsePrefix("10.0.2.0/24")}, "none": nil}
	for name, row := range map[string]struct {
		pods []*policy.Pod
		peer string
	}{
		"one pod, outside of its ranges":       {[]*policy.Pod{pod("a", "two", false)}, "a"},
		"one pod that is Terminating":          {[]*policy.Pod{pod("a", "one", leaving)}, "a"},
		"one inside, one outside":              {[]*policy.Pod{pod("a", "two", false), pod("b", "one", false)}, "b"},
		"Terminating inside, staying outside":  {[]*policy.Pod{pod("a", "one", leaving), pod("b", "two", false)}, "a"},
		"both inside":                          {[]*policy.Pod{pod("a", "one", false), pod("b", "one", false)}, ""},
		"both inside, one is Terminating":      {[]*policy.Pod{pod("a", "one", leaving), pod("b", "one", false)}, "b"},
		"both inside, both Terminating":        {[]*policy.Pod{pod("a", "one", leaving), pod("b", "one", leaving)}, ""},
		"both outside":                         {[]*policy.Pod{pod("a", "two", false), pod("b", "none", false)}, ""},
		"both outside, one is Terminating":     {[]*policy.Pod{pod("a", "two", leaving), pod("b", "none", false)}, "b"},
		"one inside, one of an unknown node":   {[]*policy.Pod{pod("a", "?", false), pod("b", "one", false)}, "b"},
		"one outside, one of an unknown node":  {[]*policy.Pod{pod("a", "?", false), pod("b", "two", false)}, ""},
		"one inside, several outside":          {[]*policy.Pod{pod("a", "two", false), pod("b", "none", leaving), pod("c", "one", false)}, "c"},
		"one inside, one that isn't scheduled": {[]*policy.Pod{pod("a", "", false), pod("b", "one", false)}, "b"},
		"another node's address":               {[]*policy.Pod{pod("a", "two", false), host("none", false)}, ""},
		"its own node's address":               {[]*policy.Pod{pod("a", "two", false), host("two", false), host("two", false)}, ""},
		"inside, though a node shows it":       {[]*policy.Pod{pod("a", "one", false), host("two", false)}, "a"},
		"a node's, and it is going":            {[]*policy.Pod{pod("a", "two", false), host("none", leaving)}, "a"},
		"a node's alone":                       {[]*policy.Pod{host("none", false)}, ""},
		"no pod, since it shows another one":   {[]*policy.Pod{{Name: "a", Node: "one", Subject: true}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			owners := policy.OwnersOf(addr, row.pods, ranges)
			peer := ""
			if owners.Peer != nil {
				peer = owners.Peer.Name
			}
			require.Equal(t, row.peer, peer)
			for _, pod := range row.pods {
				require.Equal(t, slices.Contains(pod.Addrs, addr), slices.Contains(owners.All, pod), "isolation of %s", pod.Name)
			}
		})
	}
}

func TestEvaluateExplains(t *testing.T) {
	c := newCluster(t, dbIngress(`{ports: [{port: 1}]}, {ports: [{port: 80}]}`), `{podSelector: {}, policyTypes: [Ingress]}`)
	evaluate := func(text string) policy.Verdict { return c.Evaluate(parseFlow(t, c, text)) }
	db := c.Pods[0]

	v := evaluate("web db TCP/80")
	require.Len(t, v.Egress, 1)
	require.Equal(t, policy.NotIsolated, v.Egress[0].Reason)
	require.Equal(t, policy.Decisions{{
		Direction: policy.Ingress, Pod: db, Reason: policy.AllowedByRule, Isolating: c.Policies, By: c.Policies[0], Rule: 1,
	}}, v.Ingress)

	v = evaluate("web db TCP/81")
	other := policy.Mismatch{PeerMatches: true, Ports: []policy.PortMismatch{policy.OtherNumber}}
	require.Equal(t, policy.Decisions{{
		Direction: policy.Ingress, Pod: db, Reason: policy.Denied, Isolating: c.Policies,
		Refusals: []policy.Refusal{{Policy: c.Policies[0], Rules: []policy.Mismatch{other, other}}, {Policy: c.Policies[1]}},
	}}, v.Ingress)

	v = evaluate("db db TCP/81")
	require.Equal(t, policy.ToItself, v.Ingress[0].Reason)

	v = evaluate("192.0.2.7 192.0.2.8 TCP/81")
	require.Empty(t, v.Egress)
	require.Empty(t, v.Ingress)
	require.True(t, v.Allowed())
}

// Every reason has its words.
func TestVerdictText(t *testing.T) {
	c := newCluster(t,
		dbIngress(`{from: [{podSelector: {matchLabels: {role: ghost}}}, {namespaceSelector: {matchLabels: {team: blue}}},
			{ipBlock: {cidr: 192.0.2.0/24}}, {ipBlock: {cidr: 10.0.0.0/29, except: [10.0.0.3/32]}}, {ipBlock: {cidr: nonsense}}]},
			{ports: [{port: 443}, {port: 100, endPort: 200}, {protocol: UDP}, {port: http}, {port: unserved}]}`),
		`{podSelector: {}, policyTypes: [Ingress]}`)
	c.Pods[0].Node = "here"
	c.Nodes = map[netip.Addr]string{netip.MustParseAddr("192.168.0.1"): "here"}
	text := func(flow string) string { return c.Evaluate(parseFlow(t, c, flow)).String() }
	require.Equal(t, `denied: 10.0.0.3 -> 10.0.0.1 TCP port 81
Egress of pod default/web: allowed, no policy isolates it
Ingress of pod default/db: denied, no rule of the policies that isolate it matches
  default/policy-0, spec.ingress[0]: the labels of the pod of 10.0.0.3 don't match (role=ghost); the namespace of 10.0.0.3 doesn't match (team=blue); 10.0.0.3 is not in 192.0.2.0/24; 10.0.0.3 is excepted from 10.0.0.0/29
  default/policy-0, spec.ingress[1]: the port is not 443; the port is not in 100 to 200; the protocol is not UDP; the port named "http" of 10.0.0.1 is another one; 10.0.0.1 serves no port named "unserved" over TCP
  default/policy-0 can't be read in part: spec.ingress[0].from[4]: ipBlock.cidr: netip.ParsePrefix("nonsense"): no '/'
  default/policy-1 has no ingress rules`, text("web db TCP/81"))
	require.Contains(t, text("192.0.2.8 db ICMP"), `allowed: 192.0.2.8 -> 10.0.0.1 ICMP
Ingress of pod default/db: allowed by default/policy-0, spec.ingress[0]`)
	require.Contains(t, text("203.0.113.1 db TCP/81"), "203.0.113.1 is not the address of one pod")
	require.Contains(t, text("blue/web db2 TCP/81"), "allowed by default/policy-0")
	require.Contains(t, text("green/new-owner db TCP/81"), "the pod of 10.0.0.9 is not in namespace default")
	require.Contains(t, text("db db TCP/81"), "allowed, a pod can always reach itself")
	require.Contains(t, text("192.168.0.1 db TCP/81"), "allowed, a node can always reach its own pods")
}
