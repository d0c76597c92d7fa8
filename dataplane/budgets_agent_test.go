package dataplane

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/budget/budgettest"
)

// An agent reports a policy that the API server takes and that is too expensive, by name
// and number, and goes on; once the policy says less it is in force.
func TestAnAgentReportsAnExpensivePolicy(t *testing.T) {
	s := newBadObjects(t)
	np := budgettest.Named(s.namespace, "expensive", 0, budgettest.Peers(400, 3000))
	np.UID, np.Generation = "", 0
	s.createObject(np)
	s.eventually(func() bool { return s.failureOf(np.UID) != nil }, "the report names the policy")
	failure := s.failureOf(np.UID)
	require.Equal(t, v1alpha1.NodeReasonTooExpensive, failure.Reason)
	require.Equal(t, "its pods are closed: 86000 rules, and 2000 are the limit of a policy; "+
		"use fewer peers, ranges of ports (endPort) and fewer policies for a pod, or ask for more (agent.budgets)", failure.Message)
	require.False(t, s.client.TCP(s.server.Addrs[0], 80, silentAfter))
	s.requireGood("with an expensive policy")

	np.Spec.Ingress[0].From, np.Spec.Ingress[0].Ports = nil, nil
	require.NoError(t, s.admin.Update(t.Context(), np))
	s.eventually(func() bool { return s.enforces(np) }, "it is in force")
	require.True(t, s.client.TCP(s.server.Addrs[0], 80, answerWithin))
	s.stop()
}
