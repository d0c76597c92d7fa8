package policy_test

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/moat-dev/moat/dataplane/policy"
)

// differentPeers select different pods in some cluster.
var differentPeers = []string{
	`{podSelector: {}}`,
	`{namespaceSelector: {}}`,
	`{podSelector: {matchLabels: {a: b}}}`,
	`{podSelector: {matchLabels: {a: c}}}`,
	`{podSelector: {matchLabels: {a: ""}}}`,
	`{podSelector: {matchLabels: {a.b: c}}}`,
	`{podSelector: {matchLabels: {a: b.c}}}`,
	`{podSelector: {matchLabels: {a: b, c: d}}}`,
	`{podSelector: {matchExpressions: [{key: a, operator: In, values: [b, c]}]}}`,
	`{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b, c]}]}}`,
	`{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [b]}]}}`,
	`{podSelector: {matchExpressions: [{key: a, operator: Exists}]}}`,
	`{podSelector: {matchExpressions: [{key: a, operator: DoesNotExist}]}}`,
	`{podSelector: {matchExpressions: [{key: notin, operator: Exists}]}}`,
	`{namespaceSelector: {matchLabels: {a: b}}}`,
	`{namespaceSelector: {matchLabels: {namespace: default}}}`,
	`{podSelector: {matchLabels: {namespace: default}}}`,
	`{podSelector: {matchLabels: {a: b}}, namespaceSelector: {}}`,
	`{podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchLabels: {c: d}}}`,
	`{podSelector: {matchLabels: {c: d}}, namespaceSelector: {matchLabels: {a: b}}}`,
}

func parsePeer(t *testing.T, text string) policy.PodPeer {
	t.Helper()
	rule, unreadable := parseRule(t, "{from: ["+text+"]}")
	require.Empty(t, unreadable, text)
	return *rule.Peers[0].Pods
}

func TestPeerKeysDiffer(t *testing.T) {
	seen := map[string]string{}
	for _, text := range differentPeers {
		pods := parsePeer(t, text)
		for _, set := range []policy.PeerSet{
			{Pods: pods},
			{Pods: pods, PortName: "http", Protocol: policy.TCP},
			{Pods: pods, PortName: "http", Protocol: policy.UDP},
			{Pods: pods, PortName: "https", Protocol: policy.TCP},
		} {
			other, taken := seen[set.Key()]
			require.False(t, taken, "%s and %s have the key %s", text, other, set.Key())
			seen[set.Key()] = text
		}
	}
	elsewhere := policy.PodPeer{Namespace: "elsewhere", Pods: labels.Everything()}
	require.NotContains(t, seen, elsewhere.Key(), "the same selector in another namespace")
}

func TestPeerKeysAgree(t *testing.T) {
	for a, b := range map[string]string{
		`{podSelector: {matchLabels: {a: b, c: d}}}`:                                                  `{podSelector: {matchLabels: {c: d, a: b}}}`,
		`{podSelector: {matchExpressions: [{key: a, operator: In, values: [c, b]}]}}`:                 `{podSelector: {matchExpressions: [{key: a, operator: In, values: [b, c]}]}}`,
		`{podSelector: {matchExpressions: [{key: c, operator: Exists}, {key: a, operator: Exists}]}}`: `{podSelector: {matchExpressions: [{key: a, operator: Exists}, {key: c, operator: Exists}]}}`,
		`{namespaceSelector: {}, podSelector: {}}`:                                                    `{namespaceSelector: {}}`,
	} {
		x, y := parsePeer(t, a), parsePeer(t, b)
		require.Equal(t, x.Key(), y.Key())
	}
	everyPod, written := policy.EveryPod(), parsePeer(t, `{namespaceSelector: {}}`)
	require.Equal(t, everyPod.Key(), written.Key())
}

func TestPeerSetElements(t *testing.T) {
	v4, v6 := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")
	pod := &policy.Pod{
		Addrs: []netip.Addr{v4, v6},
		Ports: []policy.NamedPort{{Name: "http", Protocol: policy.TCP, Number: 8080}},
	}
	plain := policy.PeerSet{Pods: policy.EveryPod()}
	require.Equal(t, []policy.Element{{Addr: v4}, {Addr: v6}}, elementsOf(&plain, pod))

	named := policy.PeerSet{Pods: policy.EveryPod(), PortName: "http", Protocol: policy.TCP}
	require.Equal(t, []policy.Element{{Addr: v4, Protocol: policy.TCP, Port: 8080}, {Addr: v6, Protocol: policy.TCP, Port: 8080}}, elementsOf(&named, pod))

	named.Protocol = policy.UDP
	require.Empty(t, elementsOf(&named, pod))
}

func elementsOf(s *policy.PeerSet, pod *policy.Pod) []policy.Element {
	var elements []policy.Element
	s.Elements(pod, func(e policy.Element) { elements = append(elements, e) })
	return elements
}

func TestDirectionString(t *testing.T) {
	require.Equal(t, "Ingress", policy.Ingress.String())
	require.Equal(t, "Egress", policy.Egress.String())
}
