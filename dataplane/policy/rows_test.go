package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/policy"
)

// pods are the cluster of the tests below. The labels of namespace lost aren't known yet.
const pods = `
- {metadata: {namespace: default, name: db, labels: {role: db}}, status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]},
   spec: {containers: [{ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 53, protocol: UDP}]}]}}
- {metadata: {namespace: default, name: db2, labels: {role: db}}, status: {podIPs: [{ip: 10.0.0.2}]},
   spec: {containers: [{ports: [{name: http, containerPort: 9090}]}]}}
- {metadata: {namespace: default, name: web, labels: {role: web, tier: front}}, status: {podIPs: [{ip: 10.0.0.3}, {ip: "fd00::3"}]}}
- {metadata: {namespace: default, name: leaving, labels: {role: web}, deletionTimestamp: "2026-01-01T00:00:00Z"}, status: {podIPs: [{ip: 10.0.0.4}]}}
- {metadata: {namespace: default, name: done, labels: {role: web}}, status: {phase: Succeeded, podIPs: [{ip: 10.0.0.9}]}}
- {metadata: {namespace: default, name: crashed, labels: {role: db}}, status: {phase: Failed, podIPs: [{ip: 10.0.0.9}]}}
- {metadata: {namespace: default, name: onhost, labels: {role: web}}, spec: {hostNetwork: true}, status: {podIPs: [{ip: 192.168.0.1}]}}
- {metadata: {namespace: blue, name: web, labels: {role: web}}, status: {podIPs: [{ip: 10.0.1.1}]}}
- {metadata: {namespace: blue, name: db, labels: {role: db}}, status: {podIPs: [{ip: 10.0.1.2}]},
   spec: {containers: [{ports: [{name: http, containerPort: 8080}]}]}}
- {metadata: {namespace: green, name: new-owner}, status: {podIPs: [{ip: 10.0.0.9}]}}
- {metadata: {namespace: lost, name: web, labels: {role: web}}, status: {podIPs: [{ip: 10.0.2.1}]},
   spec: {containers: [{ports: [{name: http, containerPort: 8080}]}]}}
`

// newCluster returns the pods with the given policies, all in namespace default.
func newCluster(t *testing.T, specs ...string) *policy.Cluster {
	t.Helper()
	c := &policy.Cluster{Namespaces: policy.Namespaces{
		"default": {"kubernetes.io/metadata.name": "default"},
		"blue":    {"kubernetes.io/metadata.name": "blue", "team": "blue"},
		"green":   {"kubernetes.io/metadata.name": "green", "team": "green"},
	}}
	var objects []corev1.Pod
	require.NoError(t, yaml.UnmarshalStrict([]byte(pods), &objects))
	for i := range objects {
		c.Pods = append(c.Pods, policy.ParsePod(&objects[i]))
	}
	for i, spec := range specs {
		object := networkingv1.NetworkPolicy{}
		object.Namespace, object.Name = "default", fmt.Sprintf("policy-%d", i)
		require.NoError(t, yaml.UnmarshalStrict([]byte(spec), &object.Spec), spec)
		c.Policies = append(c.Policies, policy.ParseNetworkPolicy(&object))
	}
	return c
}

// row is a row of the rules that implementers of NetworkPolicy get wrong. A flow
// is written "source destination protocol/port"; an end is an address or the name
// of a pod, which is in namespace default unless it says otherwise.
type row struct {
	name     string
	policies []string
	pass     []string
	drop     []string
}

func runRows(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			c := newCluster(t, r.policies...)
			for _, text := range r.pass {
				require.True(t, c.Evaluate(parseFlow(t, c, text)).Allowed(), "%s must pass", text)
			}
			for _, text := range r.drop {
				require.False(t, c.Evaluate(parseFlow(t, c, text)).Allowed(), "%s must be dropped", text)
			}
		})
	}
}

func parseFlow(t *testing.T, c *policy.Cluster, text string) policy.Flow {
	t.Helper()
	words := strings.Fields(text)
	require.Len(t, words, 3, text)
	name, port, _ := strings.Cut(words[2], "/")
	flow := policy.Flow{Source: end(t, c, words[0]), Destination: end(t, c, words[1])}
	flow.Protocol = map[string]policy.Protocol{
		"ICMP": policy.ICMP, "TCP": policy.TCP, "UDP": policy.UDP, "SCTP": policy.SCTP,
	}[name]
	require.NotZero(t, flow.Protocol, text)
	if port != "" {
		_, err := fmt.Sscan(port, &flow.Port)
		require.NoError(t, err, text)
	}
	return flow
}

func end(t *testing.T, c *policy.Cluster, name string) netip.Addr {
	t.Helper()
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr
	}
	if !strings.Contains(name, "/") {
		name = "default/" + name
	}
	for _, pod := range c.Pods {
		if pod.Key().String() == name {
			require.NotEmpty(t, pod.Addrs, name)
			return pod.Addrs[0]
		}
	}
	require.FailNow(t, "no such pod", name)
	return netip.Addr{}
}

// Shorthand for the policies of the rows: db's ingress, web's egress.
func dbIngress(rules string) string {
	return "{podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress], ingress: [" + rules + "]}"
}

func webEgress(rules string) string {
	return "{podSelector: {matchLabels: {role: web}}, policyTypes: [Egress], egress: [" + rules + "]}"
}
