package charts_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/internal/apiservertest"
)

// Agents' reports have a queue of their own, and nothing else has it.
func TestReportsWaitInAQueueOfTheirOwn(t *testing.T) {
	agent := server.Agent(t, "node-queue")
	own := &flowcontrolv1.FlowSchema{}
	require.NoError(t, server.Admin(t).Get(t.Context(), client.ObjectKey{Name: "moat-agent-reports"}, own))
	const reports, pods = "/apis/isolation.moat.dev/v1alpha1/nodeenforcements/node-queue", "/api/v1/pods?limit=1"
	require.Eventually(t, func() bool { return schemaOf(t, agent, reports) == string(own.UID) }, 10*time.Second, 100*time.Millisecond)
	require.NotEqual(t, string(own.UID), schemaOf(t, agent, pods))
	require.NotEqual(t, string(own.UID), schemaOf(t, server.Operator(t), reports))
}

// schemaOf returns the uid of the FlowSchema that the API server took for a request.
func schemaOf(t *testing.T, config *rest.Config, path string) string {
	t.Helper()
	connection, err := rest.HTTPClientFor(config)
	require.NoError(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, config.Host+path, nil)
	require.NoError(t, err)
	response, err := connection.Do(request)
	require.NoError(t, err)
	require.NoError(t, response.Body.Close())
	return response.Header.Get(flowcontrolv1.ResponseHeaderMatchedFlowSchemaUID)
}

// The queue knows the agents by the namespace of the release.
func TestTheQueueFollowsTheNamespace(t *testing.T) {
	schema := decode[flowcontrolv1.FlowSchema](t, render(t, "--namespace", "elsewhere"), "FlowSchema/moat-agent-reports")
	require.Equal(t, &flowcontrolv1.ServiceAccountSubject{Namespace: "elsewhere", Name: apiservertest.AgentAccount}, schema.Spec.Rules[0].Subjects[0].ServiceAccount)
}
