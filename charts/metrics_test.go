package charts_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
)

// The agents' metrics are on all addresses of a node unless the values say otherwise.
func TestWhereTheAgentsMetricsAre(t *testing.T) {
	const agent = "DaemonSet/moat-agent"
	for value, flag := range map[string]string{
		"All": "--metrics-address=:9470\n", "NodeIP": "--metrics-address=[$(NODE_IP)]:9470\n",
		"Loopback": "--metrics-address=127.0.0.1:9470\n", "None": "--metrics-address=0\n",
	} {
		text := render(t, "--set", "agent.metricsListen="+value)[agent].text
		require.Contains(t, text, flag, value)
		require.Equal(t, value == "NodeIP", strings.Contains(text, "fieldPath: status.hostIP"), value)
	}
	require.Contains(t, render(t)[agent].text, "--metrics-address=:9470\n")
}

// With authentication Prometheus gets a token that may read the metrics and nothing else, and
// the agents the rights to ask about it. Without, there is nothing of that.
func TestTheAgentsMetricsAskWhoReads(t *testing.T) {
	keys := []string{"ClusterRole/moat-metrics", "ClusterRoleBinding/moat-metrics", "ClusterRole/moat-metrics-reader"}
	ofPrometheus := []string{"ServiceAccount/moat-metrics-reader", "Secret/moat-metrics-reader", "ClusterRoleBinding/moat-metrics-reader"}
	objects := render(t)
	for _, key := range append(keys, ofPrometheus...) {
		require.NotContains(t, objects, key)
	}
	require.NotContains(t, objects["DaemonSet/moat-agent"].text, "--metrics-authentication")

	objects = render(t, "--set", "agent.metricsAuthentication=true,monitoring.podMonitor.enabled=true")
	require.Equal(t, []rbacv1.PolicyRule{
		{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
		{APIGroups: []string{"authorization.k8s.io"}, Resources: []string{"subjectaccessreviews"}, Verbs: []string{"create"}},
	}, decode[rbacv1.ClusterRole](t, objects, keys[0]).Rules)
	require.Equal(t, []rbacv1.PolicyRule{{NonResourceURLs: []string{"/metrics"}, Verbs: []string{"get"}}},
		decode[rbacv1.ClusterRole](t, objects, keys[2]).Rules)
	for _, key := range ofPrometheus {
		require.Contains(t, objects, key)
	}
	monitor := objects["PodMonitor/moat-agent"].text
	require.Contains(t, monitor, "scheme: https")
	require.Contains(t, monitor, "name: moat-metrics-reader")
	require.NotContains(t, objects["PodMonitor/moat-operator"].text, "https")
	require.Equal(t, []string{"moat-agent"}, subjects(t, objects, keys[1]))
}

// The operator asks as the agents do, each where its value says so.
func TestTheOperatorsMetricsAskWhoReads(t *testing.T) {
	objects := render(t, "--set", "operator.metricsAuthentication=true,monitoring.podMonitor.enabled=true")
	require.Contains(t, objects["Deployment/moat-operator"].text, "--metrics-authentication")
	require.NotContains(t, objects["DaemonSet/moat-agent"].text, "--metrics-authentication")
	require.Equal(t, []string{"moat-operator"}, subjects(t, objects, "ClusterRoleBinding/moat-metrics"))
	require.Contains(t, objects["PodMonitor/moat-operator"].text, "scheme: https")
	require.NotContains(t, objects["PodMonitor/moat-agent"].text, "https")

	objects = render(t, "--set", "operator.metricsAuthentication=true,agent.metricsAuthentication=true")
	require.Equal(t, []string{"moat-agent", "moat-operator"}, subjects(t, objects, "ClusterRoleBinding/moat-metrics"))
}

// subjects returns the names of those that a ClusterRoleBinding gives its role to.
func subjects(t *testing.T, objects map[string]object, key string) []string {
	t.Helper()
	var names []string
	for _, subject := range decode[rbacv1.ClusterRoleBinding](t, objects, key).Subjects {
		names = append(names, subject.Name)
	}
	return names
}
