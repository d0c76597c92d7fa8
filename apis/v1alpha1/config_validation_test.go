package v1alpha1_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// isolationConfig returns an IsolationConfig with the given spec, in YAML.
func isolationConfig(t *testing.T, spec string) *unstructured.Unstructured {
	t.Helper()
	config := &unstructured.Unstructured{Object: map[string]any{}}
	config.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("IsolationConfig"))
	config.SetName(v1alpha1.IsolationConfigName)
	var parsed map[string]any
	require.NoError(t, yaml.UnmarshalStrict([]byte(spec), &parsed))
	config.Object["spec"] = parsed
	return config
}

func TestConfigAccepted(t *testing.T) {
	admin := server.Admin(t)
	app := "{app: {matchLabels: {a: b}, namespaces: {selector: {}}}}"
	for name, spec := range map[string]string{
		"empty":   "{}",
		"all":     "{dns: {peers: [" + app + "], ports: [{port: dns}]}, ingressControllers: {peers: [" + app + ", {entity: Nodes}]}, monitoring: {peers: [{cidr: {cidr: 10.0.0.0/8}}]}, clusterCIDRs: [10.0.0.0/8, '2001:db8::/32'], nodeCIDRs: [192.168.0.0/16]}",
		"no port": "{dns: {peers: [" + app + "]}}",
	} {
		t.Run(name, func(t *testing.T) {
			config := isolationConfig(t, spec)
			require.NoError(t, admin.Create(t.Context(), config, client.FieldValidation("Strict")))
			require.NoError(t, admin.Delete(t.Context(), config))
		})
	}
}

// TestDNSPortsDefault: DNS alone has ports, which no user should have to know.
func TestDNSPortsDefault(t *testing.T) {
	admin := server.Admin(t)
	config := isolationConfig(t, "{dns: {peers: [{entity: Nodes}]}}")
	require.NoError(t, admin.Create(t.Context(), config))
	t.Cleanup(func() { require.NoError(t, admin.Delete(context.Background(), config)) })
	ports, _, err := unstructured.NestedSlice(config.Object, "spec", "dns", "ports")
	require.NoError(t, err)
	require.Equal(t, []any{
		map[string]any{"port": int64(53), "protocol": "UDP"},
		map[string]any{"port": int64(53), "protocol": "TCP"},
	}, ports)
}

func TestConfigRefused(t *testing.T) {
	admin := server.Admin(t)
	const peer = "spec.monitoring.peers[0]"
	for name, refused := range map[string]struct {
		spec, field, fix string
	}{
		"no peers":              {"{monitoring: {peers: []}}", "spec.monitoring.peers", "at least 1"},
		"no peers of DNS":       {"{dns: {ports: [{port: 53}]}}", "spec.dns.peers", "Required value"},
		"no ports of DNS":       {"{dns: {peers: [{entity: Nodes}], ports: []}}", "spec.dns.ports", "at least 1"},
		"empty peer":            {"{monitoring: {peers: [{}]}}", peer, "exactly one of app, cidr and entity"},
		"two peers in one":      {"{monitoring: {peers: [{entity: Nodes, cidr: {cidr: 10.0.0.0/8}}]}}", peer, "exactly one of app, cidr and entity"},
		"app without namespace": {"{monitoring: {peers: [{app: {matchLabels: {a: b}}}]}}", peer + ".app", "write names, or selector: {} for every namespace"},
		"another entity":        {"{monitoring: {peers: [{entity: Internet}]}}", peer + ".entity", `supported values: "Nodes"`},
		"no cluster range":      {"{clusterCIDRs: [nonsense]}", "spec.clusterCIDRs[0]", "write address/prefix-length"},
		"bits after the prefix": {"{clusterCIDRs: [10.0.0.1/8]}", "spec.clusterCIDRs[0]", "no bits set after the prefix"},
		"all addresses":         {"{clusterCIDRs: ['::/0']}", "spec.clusterCIDRs[0]", "would leave no Internet: list the cluster's own ranges"},
		"no node range":         {"{nodeCIDRs: [10.0.0.1]}", "spec.nodeCIDRs[0]", "write address/prefix-length"},
	} {
		t.Run(name, func(t *testing.T) {
			err := admin.Create(t.Context(), isolationConfig(t, refused.spec), client.FieldValidation("Strict"))
			require.True(t, apierrors.IsInvalid(err), "want it refused as invalid, got %v", err)
			require.ErrorContains(t, err, refused.field+":")
			require.ErrorContains(t, err, refused.fix)
		})
	}
}

func TestConfigIsASingleton(t *testing.T) {
	config := isolationConfig(t, "{}")
	config.SetName("other")
	err := server.Admin(t).Create(t.Context(), config)
	require.ErrorContains(t, err, "the one IsolationConfig of a cluster is named default")
}

// TestCELRulesAreTested is here for new rules: a part of each message has to be in a test of
// this package.
func TestCELRulesAreTested(t *testing.T) {
	const part = 14
	messages, tests := celMessages(t), testSources(t)
	require.NotEmpty(t, messages)
	for _, message := range messages {
		tested := false
		for i := range len(message) - part {
			tested = tested || strings.Contains(tests, message[i:i+part])
		}
		require.True(t, tested, "no test shows what a user sees: %s", message)
	}
}
