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
	return s.User(t, "system:serviceaccount:"+OperatorNamespace+":moat-agent", "system:serviceaccounts", "system:authenticated")
}

// User returns how to connect as a user of some groups.
func (s *Server) User(t testing.TB, name string, groups ...string) *rest.Config {
	t.Helper()
	s.require(t)
	user, err := s.env.AddUser(envtest.User{Name: name, Groups: groups}, s.env.Config)
	require.NoError(t, err)
	return user.Config()
}
