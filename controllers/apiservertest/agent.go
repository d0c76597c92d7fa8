package apiservertest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// Agent returns how to connect as the agents' service account, which has the
// rights that config/rbac gives it and no others.
func (s *Server) Agent(t testing.TB) *rest.Config {
	t.Helper()
	s.require(t)
	s.agentRole.Do(func() { s.err = s.createAll(configPath("rbac", "agent_role.yaml")) })
	require.NoError(t, s.err)
	user, err := s.env.AddUser(envtest.User{
		Name:   "system:serviceaccount:" + OperatorNamespace + ":moat-agent",
		Groups: []string{"system:serviceaccounts", "system:authenticated"},
	}, s.env.Config)
	require.NoError(t, err)
	return user.Config()
}
