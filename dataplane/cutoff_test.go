package dataplane

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/health"
	"github.com/moat-dev/moat/dataplane/lastword"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// asks returns what the kubelet gets for an answer.
func (s *agentScene) asks(path string) (int, string) {
	w := httptest.NewRecorder()
	s.agent.health.Handler(health.Holder{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, strings.TrimSpace(w.Body.String())
}

// An agent whose way to the API server is cut keeps its rules and goes on, and stops to
// vouch for them: it isn't Ready, which the kubelet tells the operator. When the way is
// there again it is, and has seen what changed. In all watches that are quiet and whole
// nothing of that happens.
func TestAnAgentThatIsCutOffIsNotReady(t *testing.T) {
	const cutOff, renew = 3 * time.Second, time.Second
	s := newAgentScene(t)
	s.words = lastword.Within(cutOff, renew)
	road := nodetest.NewRoad()
	s.dial = road.Dial
	server := s.node.AddPod(t, "10.244.1.97")
	peer := s.node.AddPod(t, "10.244.1.98")
	s.pod("server", map[string]string{"app": "server"}, server)
	s.start()
	defer s.stop()
	defer road.Mend()
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: s.namespace, Name: "server"}}
	require.NoError(t, yaml.Unmarshal([]byte(`{podSelector: {}, policyTypes: [Ingress]}`), &np.Spec))
	require.NoError(t, s.admin.Create(t.Context(), np))
	s.eventually(func() bool { return s.enforces(np) }, "the rules are in force")
	require.Never(t, func() bool {
		code, _ := s.asks("/readyz")
		return code != http.StatusOK
	}, cutOff+2*time.Second, 100*time.Millisecond, "a quiet cluster is no cut")
	ages := s.words.Ages()
	require.Len(t, ages, 4, "each watch has an age")
	require.Less(t, ages[0].Age, cutOff)

	road.Cut()
	start := time.Now()
	var said string
	s.eventually(func() bool {
		var code int
		code, said = s.asks("/readyz")
		return code == http.StatusServiceUnavailable
	}, "an agent that hears nothing isn't Ready")
	require.Contains(t, said, "the API server has said nothing of ")
	require.Less(t, time.Since(start), cutOff+time.Second)
	code, _ := s.asks("/healthz")
	require.Equal(t, http.StatusOK, code, "nor is it restarted")
	require.False(t, peer.Ping(server.Addrs[0], silentAfter), "its rules stand")
	require.NoError(t, s.admin.Delete(t.Context(), np))

	road.Mend()
	s.eventually(func() bool {
		code, _ := s.asks("/readyz")
		return code == http.StatusOK
	}, "it hears again")
	s.eventually(func() bool { return peer.Ping(server.Addrs[0], silentAfter) }, "and sees what changed")
}
