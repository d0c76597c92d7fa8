package survey

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/controllers/enforcement/enforcementtest"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
	"github.com/moat-dev/moat/internal/apiservertest"
)

var server apiservertest.Server

func TestMain(m *testing.M) {
	os.Exit(server.Run(m))
}

// TestAgentsAreAskedByNode: what a policy costs doesn't depend on how many agents
// there are elsewhere.
func TestAgentsAreAskedByNode(t *testing.T) {
	c := enforcementtest.Bare(t, &server)
	here, elsewhere := c.NodeName("here"), c.NodeName("elsewhere")
	c.Agent(here)
	c.SetReady(c.Agent(elsewhere), corev1.ConditionFalse)
	s := New(c.CachedClient(apiservertest.OperatorNamespace, CacheByObject(), AddIndexes), apiservertest.OperatorNamespace)
	for node, want := range map[string]judge.AgentState{here: judge.AgentReady, elsewhere: judge.AgentNotReady, c.NodeName("none"): judge.AgentMissing} {
		state, err := s.agent(t.Context(), node)
		require.NoError(t, err)
		require.Equal(t, want, state, node)
	}
	pod := func(digest string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: digest}, Spec: corev1.PodSpec{NodeName: here}}
	}
	nodes, err := s.Nodes(t.Context(), []*corev1.Pod{pod("a"), pod("b")})
	require.NoError(t, err)
	require.Equal(t, []judge.Node{{Name: here, Agent: judge.AgentReady, Pods: []string{"a", "b"}}}, nodes)
}
