package cluster

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/moat-dev/moat/internal/apiservertest"
)

// Operator is the operator as it is shipped: a process that has nothing but its
// kubeconfig and the rights of its role.
type Operator struct {
	*Process
	metrics string // address
}

// StartOperator starts the operator next to the API server, with further flags, and
// waits until it is ready. It takes a node's policies for enforced only where
// RunAgentPod makes the agent's pod.
func (c *Cluster) StartOperator(t testing.TB, flags ...string) *Operator {
	t.Helper()
	kubeconfig := c.Kubeconfig(t, "system:serviceaccount:"+apiservertest.OperatorNamespace+":moat-operator", "system:serviceaccounts", "system:authenticated")
	health, metrics := apiservertest.Address(t), apiservertest.Address(t)
	args := append([]string{
		"operator", "--health-address=" + health, "--metrics-address=" + metrics, "--agent-namespace=" + apiservertest.OperatorNamespace,
	}, flags...)
	env := append(os.Environ(), "KUBECONFIG="+kubeconfig)
	o := &Operator{Process: start(t, filepath.Join(c.dir, "operator.log"), onThread, env, moatBinary(t), args...), metrics: metrics}
	probe := &http.Client{Timeout: probeTimeout}
	ready := func() bool {
		_, err := fetch(probe, "http://"+health+"/readyz")
		return err == nil || !o.Running()
	}
	explain := lazy(func() string { return lastLines(o.Log) })
	require.Eventually(t, ready, eventually, poll, "the operator isn't ready\n%s", explain)
	require.True(t, o.Running(), "the operator ended\n%s", explain)
	return o
}

// Metrics asks the operator.
func (o *Operator) Metrics(t testing.TB) Metrics {
	t.Helper()
	body, err := fetch(&http.Client{Timeout: scrapeTimeout}, "http://"+o.metrics+"/metrics")
	require.NoError(t, err)
	return parseMetrics(t, body)
}

// APIServerMetrics asks the API server.
func (c *Cluster) APIServerMetrics(t testing.TB) Metrics {
	t.Helper()
	config := c.Config(t)
	client, err := rest.HTTPClientFor(config)
	require.NoError(t, err)
	client.Timeout = scrapeTimeout
	server, _, err := rest.DefaultServerUrlFor(config)
	require.NoError(t, err)
	body, err := fetch(client, strings.TrimSuffix(server.String(), "/")+"/metrics")
	require.NoError(t, err)
	return parseMetrics(t, body)
}
