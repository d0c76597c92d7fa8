package apiservertest

import (
	"testing"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
)

// AgentAccount is the agents' service account, in OperatorNamespace.
const AgentAccount = "moat-agent"

// tokenSeconds is how long an agent's token is good: longer than any test runs.
const tokenSeconds = 24 * 60 * 60

// Agent returns how to connect as the agent of a node: with a token of the agents'
// service account as the kubelet gets it, bound to a pod on that node, and with the
// rights that config/rbac gives and no others. The node needs no Node.
func (s *Server) Agent(t testing.TB, node string) *rest.Config {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: OperatorNamespace, Name: "token-of-" + node},
		Spec: corev1.PodSpec{
			NodeName:           node,
			HostNetwork:        true,
			ServiceAccountName: AgentAccount,
			Containers:         []corev1.Container{{Name: "agent", Image: "none"}},
		},
	}
	if err := s.Admin(t).Create(t.Context(), pod); !apierrors.IsAlreadyExists(err) {
		require.NoError(t, err)
	}
	return s.agent(t, &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name})
}

// UnboundAgent returns how to connect with a token of the agents' service account
// that names no node.
func (s *Server) UnboundAgent(t testing.TB) *rest.Config {
	t.Helper()
	return s.agent(t, nil)
}

func (s *Server) agent(t testing.TB, bound *authenticationv1.BoundObjectReference) *rest.Config {
	t.Helper()
	s.require(t)
	s.agentRole.Do(func() { s.err = s.createAll("rbac/service_accounts.yaml", "rbac/agent_role.yaml") })
	require.NoError(t, s.err)

	seconds := int64(tokenSeconds)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: OperatorNamespace, Name: AgentAccount}}
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound, ExpirationSeconds: &seconds},
	}
	require.NoError(t, s.admin.SubResource("token").Create(t.Context(), account, request))
	config := rest.AnonymousClientConfig(s.adminConfig)
	config.BearerToken = request.Status.Token
	return config
}

// User returns how to connect as a user of some groups.
func (s *Server) User(t testing.TB, name string, groups ...string) *rest.Config {
	t.Helper()
	s.require(t)
	user, err := s.env.AddUser(envtest.User{Name: name, Groups: groups}, s.env.Config)
	require.NoError(t, err)
	return user.Config()
}

// ClientOf connects with a config, without a cache.
func ClientOf(t testing.TB, config *rest.Config) client.Client {
	t.Helper()
	connected, err := client.New(config, client.Options{Scheme: NewScheme()})
	require.NoError(t, err)
	return connected
}
