package policy_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/policy"
)

func parsePods(t *testing.T, text string) []*policy.Pod {
	t.Helper()
	var objects []corev1.Pod
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &objects))
	list := make([]*policy.Pod, len(objects))
	for i := range objects {
		list[i] = policy.ParsePod(&objects[i])
	}
	return list
}

func parsePolicies(t *testing.T, text string) []*policy.Policy {
	t.Helper()
	var objects []networkingv1.NetworkPolicy
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &objects))
	list := make([]*policy.Policy, len(objects))
	for i := range objects {
		list[i] = policy.ParseNetworkPolicy(&objects[i])
	}
	return list
}

const localPods = `
- {metadata: {namespace: b, name: web, labels: {role: web}}, status: {podIPs: [{ip: 10.0.0.1}]}}
- {metadata: {namespace: a, name: web, labels: {role: web}}, status: {podIPs: [{ip: 10.0.0.2}]}}
- {metadata: {namespace: a, name: db, labels: {role: db}}, status: {podIPs: [{ip: 10.0.0.3}]}}
- {metadata: {namespace: a, name: starting, labels: {role: starting}}}
- {metadata: {namespace: a, name: host, labels: {role: host}}, spec: {hostNetwork: true}, status: {podIPs: [{ip: 192.168.0.1}]}}
- {metadata: {namespace: c, name: free}, status: {podIPs: [{ip: 10.0.0.4}]}}
`

const localPolicies = `
- {metadata: {namespace: a, name: z-web}, spec: {podSelector: {matchLabels: {role: web}}, policyTypes: [Ingress]}}
- {metadata: {namespace: a, name: all}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}
- {metadata: {namespace: b, name: web}, spec: {podSelector: {matchLabels: {role: web}}, policyTypes: [Egress]}}
- {metadata: {namespace: a, name: starting}, spec: {podSelector: {matchLabels: {role: starting}}, policyTypes: [Ingress]}}
- {metadata: {namespace: a, name: host}, spec: {podSelector: {matchLabels: {role: host}}, policyTypes: [Ingress]}}
- {metadata: {namespace: a, name: ghost}, spec: {podSelector: {matchLabels: {role: ghost}}, policyTypes: [Ingress]}}
- {metadata: {namespace: d, name: elsewhere}, spec: {podSelector: {}, policyTypes: [Ingress]}}
`

func TestEndpoints(t *testing.T) {
	pods, policies := parsePods(t, localPods), parsePolicies(t, localPolicies)
	want := []string{
		"a/db Ingress:all Egress:all",
		"a/web Ingress:all,z-web Egress:all",
		"b/web Ingress: Egress:web",
	}
	for range 2 {
		var got []string
		for _, e := range policy.Endpoints(pods, policies) {
			got = append(got, describe(&e))
		}
		require.Equal(t, want, got)
		slices.Reverse(pods)
		slices.Reverse(policies)
	}
	require.Empty(t, policy.Endpoints(pods, nil))
	require.Empty(t, policy.Endpoints(nil, policies))
}

func describe(e *policy.Endpoint) string {
	text := e.Pod.Key().String()
	for _, d := range []policy.Direction{policy.Ingress, policy.Egress} {
		separator := " " + d.String() + ":"
		for _, p := range e.Isolating[d] {
			text += separator + p.Name
			separator = ","
		}
		if !e.Isolated(d) {
			text += separator
		}
	}
	return text
}

// A pod that has no address yet counts: its policies will be in force when it has
// one.
func TestSelecting(t *testing.T) {
	pods, policies := parsePods(t, localPods), parsePolicies(t, localPolicies)
	var names []string
	for _, p := range policy.Selecting(pods, policies) {
		names = append(names, p.Key().String())
	}
	require.Equal(t, []string{"a/z-web", "a/all", "b/web", "a/starting"}, names)
	require.Empty(t, policy.Selecting(nil, policies))
}

// A rule for all peers and all ports forbids nothing, whatever else isolates the pod.
func TestRestricted(t *testing.T) {
	for rules, want := range map[string]bool{
		`[]`:                                 true,
		`[{}]`:                               false,
		`[{from: [], ports: []}]`:            false,
		`[{ports: [{port: 80}]}]`:            true,
		`[{from: [{podSelector: {}}]}]`:      true,
		`[{ports: [{port: 80}]}, {}]`:        false,
		`[{from: [{ipBlock: {cidr: bad}}]}]`: true,
	} {
		policies := parsePolicies(t, `
- {metadata: {namespace: a, name: closed}, spec: {podSelector: {}, policyTypes: [Ingress]}}
- {metadata: {namespace: a, name: rules}, spec: {podSelector: {}, policyTypes: [Ingress], ingress: `+rules+`}}`)
		endpoints := policy.Endpoints(parsePods(t, `[{metadata: {namespace: a, name: pod}, status: {podIPs: [{ip: 10.0.0.1}]}}]`), policies)
		require.Len(t, endpoints, 1)
		require.Equal(t, want, endpoints[0].Restricted(policy.Ingress), rules)
		require.False(t, endpoints[0].Restricted(policy.Egress), "not isolated")
	}
}
