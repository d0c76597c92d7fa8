package dataplane

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/budget/budgettest"
	"github.com/moat-dev/moat/dataplane/policystore"
)

// The policies of one namespace take no more of an agent's memory than their share. Beyond it
// the youngest is closed and reported, others' are in force, and once there is room the agent
// reads it again.
func TestOneNamespaceCannotTakeAnAgentsMemory(t *testing.T) {
	s := newBadObjectsOf(t, func(s *agentScene) { s.policies = policystore.New(100 << 10) })
	large := func(name, app string) *networkingv1.NetworkPolicy {
		np := budgettest.Named(s.namespace, name, 0, budgettest.ManyCIDRs(1000))
		np.UID, np.Generation = "", 0
		np.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
		return s.createObject(np)
	}
	first := large("a", "another")
	second := large("b", "server")
	s.eventually(func() bool { return s.failureOf(second.UID) != nil }, "the report names the younger policy")
	failure := s.failureOf(second.UID)
	require.Equal(t, v1alpha1.NodeReasonTooExpensive, failure.Reason)
	require.True(t, strings.HasPrefix(failure.Message, "the policies of its namespace take more of the agent's memory"), failure.Message)
	require.False(t, s.client.TCP(s.server.Addrs[0], 80, silentAfter), "it is closed, although its rules would allow this")
	s.requireGood("with policies that take much memory")

	require.NoError(t, s.admin.Delete(t.Context(), first))
	s.eventually(func() bool { return s.enforces(second) }, "the younger policy is in force once there is room")
	require.True(t, s.client.TCP(s.server.Addrs[0], 80, answerWithin))
	s.stop()
}
