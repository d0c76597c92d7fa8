package policy_test

import (
	"net/netip"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/policy"
)

// parse reads the spec of a NetworkPolicy in namespace default.
func parse(t *testing.T, spec string) *policy.Policy {
	t.Helper()
	object := &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "test", UID: "uid-1", Generation: 7},
	}
	require.NoError(t, yaml.UnmarshalStrict([]byte(spec), &object.Spec))
	return policy.ParseNetworkPolicy(object)
}

// parseRule reads a policy with one ingress rule and returns that rule.
func parseRule(t *testing.T, rule string) (policy.Rule, []error) {
	t.Helper()
	p := parse(t, "{podSelector: {}, policyTypes: [Ingress], ingress: ["+rule+"]}")
	require.Len(t, p.Rules[policy.Ingress], 1)
	return p.Rules[policy.Ingress][0], p.Unreadable
}

func TestParseNetworkPolicyKeepsIdentityAndOrder(t *testing.T) {
	p := parse(t, `{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress],
		ingress: [{ports: [{port: 1}]}, {ports: [{port: 2}]}], egress: [{ports: [{port: 3}]}]}`)
	require.Equal(t, types.NamespacedName{Namespace: "default", Name: "test"}, p.Key())
	require.Equal(t, types.UID("uid-1"), p.UID)
	require.EqualValues(t, 7, p.Generation)
	require.Equal(t, "role=db", p.Selector.String())
	require.Empty(t, p.Unreadable)

	var ports []uint16
	for _, rule := range append(p.Rules[policy.Ingress], p.Rules[policy.Egress]...) {
		ports = append(ports, rule.Ports[0].First)
	}
	require.Equal(t, []uint16{1, 2, 3}, ports)
}

func TestParsePolicyTypes(t *testing.T) {
	type isolates = [policy.Directions]bool
	for spec, want := range map[string]isolates{
		`policyTypes: [Ingress]`:                 {policy.Ingress: true},
		`policyTypes: [Egress]`:                  {policy.Egress: true},
		`policyTypes: [Egress, Ingress]`:         {true, true},
		`{}`:                                     {policy.Ingress: true},
		`egress: [{}]`:                           {true, true},
		`{policyTypes: [Ingress], egress: [{}]}`: {policy.Ingress: true},
	} {
		p := parse(t, spec)
		require.Equal(t, want, p.Isolates, spec)
		require.Empty(t, p.Unreadable, spec)
	}
	// A type of a later version may close either direction.
	p := parse(t, `policyTypes: [Sideways]`)
	require.Equal(t, isolates{true, true}, p.Isolates)
	require.Len(t, p.Unreadable, 1)
	require.ErrorContains(t, p.Unreadable[0], `spec.policyTypes[0]: unknown policy type "Sideways"`)
}

func TestParsePorts(t *testing.T) {
	for text, want := range map[string]policy.Port{
		`{}`:                        {Protocol: policy.TCP, Last: 65535},
		`{protocol: TCP}`:           {Protocol: policy.TCP, Last: 65535},
		`{protocol: UDP}`:           {Protocol: policy.UDP, Last: 65535},
		`{protocol: SCTP, port: 9}`: {Protocol: policy.SCTP, First: 9, Last: 9},
		`{protocol: "", port: 9}`:   {Protocol: policy.TCP, First: 9, Last: 9},
		`{port: 80}`:                {Protocol: policy.TCP, First: 80, Last: 80},
		`{port: 80, endPort: 80}`:   {Protocol: policy.TCP, First: 80, Last: 80},
		`{port: 1, endPort: 65535, protocol: UDP}`: {Protocol: policy.UDP, First: 1, Last: 65535},
		`{port: http}`: {Protocol: policy.TCP, Name: "http"},
		`{port: "80"}`: {Protocol: policy.TCP, Name: "80"},
		`{port: 32000, endPort: 32768, protocol: ~}`: {Protocol: policy.TCP, First: 32000, Last: 32768},
	} {
		rule, unreadable := parseRule(t, "{ports: ["+text+"]}")
		require.Empty(t, unreadable, text)
		require.False(t, rule.AnyPort, text)
		require.True(t, rule.AnyPeer, text)
		require.Equal(t, []policy.Port{want}, rule.Ports, text)
	}
}

func TestParseUnreadablePortsAllowNothing(t *testing.T) {
	for text, want := range map[string]string{
		`{protocol: ICMP}`:            `unknown protocol "ICMP"`,
		`{endPort: 90}`:               "endPort needs a port",
		`{port: 90, endPort: 80}`:     "ports 90 to 80",
		`{port: 0}`:                   "ports 0 to 0",
		`{port: 65536}`:               "ports 65536 to 65536",
		`{port: 80, endPort: 65536}`:  "ports 80 to 65536",
		`{port: -1}`:                  "ports -1 to -1",
		`{port: ""}`:                  "must not be empty",
		`{port: http, endPort: 8080}`: "has no endPort",
	} {
		rule, unreadable := parseRule(t, "{ports: ["+text+"]}")
		require.Len(t, unreadable, 1, text)
		require.ErrorContains(t, unreadable[0], "spec.ingress[0].ports[0]: ", text)
		require.ErrorContains(t, unreadable[0], want, text)
		require.False(t, rule.AnyPort, "%s opens every port", text)
		require.Empty(t, rule.Ports, text)
	}
	rule, unreadable := parseRule(t, `{ports: [{port: 80}, {port: 0}, {port: 443}]}`)
	require.Len(t, unreadable, 1, "a readable port stays")
	require.Len(t, rule.Ports, 2)
}

func TestParseBlocks(t *testing.T) {
	for text, want := range map[string]policy.Block{
		`{cidr: 10.0.0.0/8}`: {CIDR: prefix("10.0.0.0/8")},
		`{cidr: 10.0.0.1/8}`: {CIDR: prefix("10.0.0.0/8")},
		`{cidr: "fd00::1/64", except: ["fd00::ffff/112"]}`: {CIDR: prefix("fd00::/64"), Except: []netip.Prefix{prefix("fd00::/112")}},
		`{cidr: 0.0.0.0/0, except: [10.1.2.3/8]}`:          {CIDR: prefix("0.0.0.0/0"), Except: []netip.Prefix{prefix("10.0.0.0/8")}},
		`{cidr: "::ffff:10.0.0.0/104"}`:                    {CIDR: prefix("10.0.0.0/8")},
		`{cidr: 10.0.0.0/8, except: ["fd00::/64"]}`:        {CIDR: prefix("10.0.0.0/8"), Except: []netip.Prefix{prefix("fd00::/64")}},
	} {
		rule, unreadable := parseRule(t, "{from: [{ipBlock: "+text+"}]}")
		require.Empty(t, unreadable, text)
		require.Equal(t, []policy.Peer{{Block: &want}}, rule.Peers, text)
	}
}

func TestParseUnreadablePeersMatchNothing(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                     "a peer needs a podSelector, a namespaceSelector or an ipBlock",
		`{ipBlock: {cidr: ""}}`:                  "ipBlock.cidr: ",
		`{ipBlock: {cidr: 10.0.0.0}}`:            "ipBlock.cidr: ",
		`{ipBlock: {cidr: 10.0.0.0/33}}`:         "ipBlock.cidr: ",
		`{ipBlock: {cidr: 010.0.0.0/8}}`:         "ipBlock.cidr: ", // octal to some programs, decimal to others
		`{ipBlock: {cidr: "::ffff:0.0.0.0/64"}}`: "mixes IPv4 and IPv6",
		`{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16, 10.2.0.0]}}`:                           "ipBlock.except[1]: ",
		`{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}`:                                           "can't be combined",
		`{ipBlock: {cidr: 10.0.0.0/8}, namespaceSelector: {}}`:                                     "can't be combined",
		`{podSelector: {matchExpressions: [{key: a, operator: Near, values: [b]}]}}`:               "podSelector: ",
		`{podSelector: {matchExpressions: [{key: a, operator: In}]}}`:                              "podSelector: ",
		`{podSelector: {matchLabels: {"not a key": b}}}`:                                           "podSelector: ",
		`{podSelector: {}, namespaceSelector: {matchExpressions: [{key: a, operator: NotIn}]}}`:    "namespaceSelector: ",
		`{namespaceSelector: {matchExpressions: [{key: a, operator: Exists, values: [present]}]}}`: "namespaceSelector: ",
	} {
		rule, unreadable := parseRule(t, "{from: ["+text+"]}")
		require.Len(t, unreadable, 1, text)
		require.ErrorContains(t, unreadable[0], "spec.ingress[0].from[0]: ", text)
		require.ErrorContains(t, unreadable[0], want, text)
		require.False(t, rule.AnyPeer, "%s opens the rule to everybody", text)
		require.Empty(t, rule.Peers, text)
	}
}

// A requirement that can't be read must not keep the policy from closing pods:
// the rest of the selector counts.
func TestParseUnreadableSubjectClosesMore(t *testing.T) {
	p := parse(t, `{podSelector: {matchLabels: {role: db}, matchExpressions: [{key: tier, operator: Near, values: [a]}]}}`)
	require.Len(t, p.Unreadable, 1)
	require.ErrorContains(t, p.Unreadable[0], "spec.podSelector: ")
	require.Equal(t, "role=db", p.Selector.String())

	p = parse(t, `{podSelector: {matchExpressions: [{key: tier, operator: Near, values: [a]}]}}`)
	require.Len(t, p.Unreadable, 1)
	require.True(t, p.Selector.Empty(), "every pod of the namespace is closed")
}

// The errors end up in a status: they must not change from one parse to the next.
func TestParseIsDeterministic(t *testing.T) {
	const wrong = `{matchLabels: {"bad key": x, "worse key": y, "no key": z, ok: "1", fine: "2"}}`
	const spec = "{podSelector: " + wrong + ", ingress: [{from: [{podSelector: " + wrong + "}]}]}"
	first := parse(t, spec)
	require.Len(t, first.Unreadable, 4, "three of the subject, one of the peer")
	for range 30 {
		again := parse(t, spec)
		require.Equal(t, first.Selector.String(), again.Selector.String())
		require.Equal(t, texts(first.Unreadable), texts(again.Unreadable))
	}
}

func texts(errs []error) []string {
	list := make([]string, len(errs))
	for i, err := range errs {
		list[i] = err.Error()
	}
	return list
}

func prefix(text string) netip.Prefix { return netip.MustParsePrefix(text) }

// Every pod selector takes a set in the kernel, and those are bounded.
func TestParseBoundsPodPeers(t *testing.T) {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default"}}
	peer := func(i int) networkingv1.NetworkPolicyPeer {
		return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": strconv.Itoa(i)}}}
	}
	np.Spec.Ingress = make([]networkingv1.NetworkPolicyIngressRule, 1)
	for i := range 5000 {
		np.Spec.Ingress[0].From = append(np.Spec.Ingress[0].From, peer(i))
	}
	np.Spec.Ingress[0].From = append(np.Spec.Ingress[0].From, peer(0))
	require.Empty(t, policy.ParseNetworkPolicy(np).Unreadable, "what is written twice counts once")

	np.Spec.Ingress[0].From = append(np.Spec.Ingress[0].From, peer(5000), peer(1))
	p := policy.ParseNetworkPolicy(np)
	require.Len(t, p.Unreadable, 1)
	require.EqualError(t, p.Unreadable[0], "spec.ingress[0].from[5001]: the policy has more than 5000 different pod selectors: "+
		"use labels that more pods share, or several policies")
	require.Len(t, p.Rules[policy.Ingress][0].Peers, 5002, "the others are in force")
}
