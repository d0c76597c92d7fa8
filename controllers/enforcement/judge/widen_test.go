package judge

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
)

// TestWidensByPeer compares the one peer of two rules.
func TestWidensByPeer(t *testing.T) {
	for name, test := range map[string]struct {
		ours, other string
		want        bool
	}{
		"same pods":                      {"podSelector: {matchLabels: {a: b}}", "podSelector: {matchLabels: {a: b}}", false},
		"other pods":                     {"podSelector: {matchLabels: {a: b}}", "podSelector: {matchLabels: {a: c}}", true},
		"some of all pods":               {"podSelector: {}", "podSelector: {matchLabels: {a: b}}", false},
		"all pods":                       {"podSelector: {matchLabels: {a: b}}", "podSelector: {}", true},
		"all pods of one namespace":      {"podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchLabels: {n: m}}", "namespaceSelector: {matchLabels: {n: m}}", true},
		"some pods of that namespace":    {"namespaceSelector: {matchLabels: {n: m}}", "podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchLabels: {n: m}}", false},
		"own namespace, of all":          {"namespaceSelector: {}", "podSelector: {}", false},
		"all namespaces":                 {"podSelector: {}", "namespaceSelector: {}", true},
		"another namespace":              {"namespaceSelector: {matchLabels: {n: m}}", "namespaceSelector: {matchLabels: {n: o}}", true},
		"same range":                     {"ipBlock: {cidr: 10.0.0.0/8}", "ipBlock: {cidr: 10.0.0.0/8}", false},
		"range inside":                   {"ipBlock: {cidr: 10.0.0.0/8}", "ipBlock: {cidr: 10.1.0.0/16}", false},
		"range around":                   {"ipBlock: {cidr: 10.1.0.0/16}", "ipBlock: {cidr: 10.0.0.0/8}", true},
		"range beside":                   {"ipBlock: {cidr: 10.1.0.0/16}", "ipBlock: {cidr: 10.2.0.0/16}", true},
		"other family":                   {"ipBlock: {cidr: 0.0.0.0/0}", "ipBlock: {cidr: '::/0'}", true},
		"what ours excepts":              {"ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}", "ipBlock: {cidr: 10.0.0.0/8}", true},
		"a part of what ours excepts":    {"ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}", "ipBlock: {cidr: 10.1.2.0/24}", true},
		"beside what ours excepts":       {"ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}", "ipBlock: {cidr: 10.2.0.0/16}", false},
		"excepts the same":               {"ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}", "ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}", false},
		"excepts more":                   {"ipBlock: {cidr: 10.0.0.0/8, except: [10.1.2.0/24]}", "ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}", false},
		"excepts less":                   {"ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}", "ipBlock: {cidr: 10.0.0.0/8, except: [10.1.2.0/24]}", true},
		"bits behind the prefix":         {"ipBlock: {cidr: 10.0.0.1/8}", "ipBlock: {cidr: 10.1.0.1/16}", false},
		"range that can't be read":       {"ipBlock: {cidr: 10.0.0.0/8}", "ipBlock: {cidr: nonsense}", true},
		"exception that can't be read":   {"ipBlock: {cidr: 10.0.0.0/8, except: [nonsense]}", "ipBlock: {cidr: 10.0.0.0/8}", true},
		"pods, where ours are addresses": {"ipBlock: {cidr: 0.0.0.0/0}", "podSelector: {}", true},
		"addresses, where ours are pods": {"namespaceSelector: {}", "ipBlock: {cidr: 10.0.0.0/8}", true},
	} {
		t.Run(name, func(t *testing.T) {
			ours := judgetest.PolicySpec(t, "{policyTypes: [Ingress], ingress: [{from: [{"+test.ours+"}]}]}")
			other := judgetest.PolicySpec(t, "{policyTypes: [Ingress], ingress: [{from: [{"+test.other+"}]}]}")
			require.Equal(t, test.want, widens(ours, other))
			require.False(t, widens(judgetest.PolicySpec(t, "{policyTypes: [Ingress], ingress: [{}]}"), other), "nothing is more than anyone")
			require.True(t, widens(judgetest.PolicySpec(t, "{policyTypes: [Ingress]}"), other), "anything is more than no peer")
		})
	}
}

// TestWidensByPort compares the one port of two rules.
func TestWidensByPort(t *testing.T) {
	for name, test := range map[string]struct {
		ours, other string
		want        bool
	}{
		"same":             {"port: 80", "port: 80, protocol: TCP", false},
		"another":          {"port: 80", "port: 81", true},
		"another protocol": {"port: 80", "port: 80, protocol: UDP", true},
		"in the range":     {"port: 80, endPort: 90", "port: 90", false},
		"before the range": {"port: 80, endPort: 90", "port: 79", true},
		"behind the range": {"port: 80, endPort: 90", "port: 85, endPort: 91", true},
		"range of one":     {"port: 80", "port: 80, endPort: 80", false},
		"every port":       {"port: 80", "protocol: TCP", true},
		"one of every":     {"protocol: TCP", "port: http", false},
		"same name":        {"port: http", "port: http", false},
		"another name":     {"port: http", "port: https", true},
		"name of a number": {"port: 80", "port: http", true},
		"number of a name": {"port: http", "port: 80", true},
	} {
		t.Run(name, func(t *testing.T) {
			ours := judgetest.PolicySpec(t, "{policyTypes: [Egress], egress: [{ports: [{"+test.ours+"}]}]}")
			other := judgetest.PolicySpec(t, "{policyTypes: [Egress], egress: [{ports: [{"+test.other+"}]}]}")
			require.Equal(t, test.want, widens(ours, other))
		})
	}
}

func TestWidensByRule(t *testing.T) {
	const peers, ports = "from: [{podSelector: {matchLabels: {a: b}}}]", "ports: [{port: 80}]"
	for name, test := range map[string]struct {
		ours, other string
		want        bool
	}{
		"both close":                {"{policyTypes: [Ingress]}", "{policyTypes: [Ingress]}", false},
		"closes another direction":  {"{policyTypes: [Ingress]}", "{policyTypes: [Egress], egress: [{}]}", false},
		"opens a closed direction":  {"{policyTypes: [Ingress, Egress], ingress: [{}]}", "{policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}", true},
		"opens only what ours does": {"{policyTypes: [Ingress], ingress: [{}]}", "{policyTypes: [Ingress, Egress], ingress: [{}], egress: [{}]}", false},
		"every port":                {"{policyTypes: [Ingress], ingress: [{" + peers + ", " + ports + "}]}", "{policyTypes: [Ingress], ingress: [{" + peers + "}]}", true},
		"every peer":                {"{policyTypes: [Ingress], ingress: [{" + peers + ", " + ports + "}]}", "{policyTypes: [Ingress], ingress: [{" + ports + "}]}", true},
		"peer and port of two rules": {"{policyTypes: [Ingress], ingress: [{" + peers + ", ports: [{port: 81}]}, {from: [{podSelector: {matchLabels: {c: d}}}], " + ports + "}]}",
			"{policyTypes: [Ingress], ingress: [{" + peers + ", " + ports + "}]}", true},
		"the second rule": {"{policyTypes: [Ingress], ingress: [{" + peers + ", " + ports + "}]}",
			"{policyTypes: [Ingress], ingress: [{" + peers + ", " + ports + "}, {}]}", true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, widens(judgetest.PolicySpec(t, test.ours), judgetest.PolicySpec(t, test.other)))
		})
	}
}
