package dataplane

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func syncedHealth() *health {
	return &health{unsynced: func() []string { return nil }, cutOff: func() error { return nil }}
}

func TestReady(t *testing.T) {
	h := syncedHealth()
	require.ErrorContains(t, h.ready(), "the first sync has not ended yet")
	h.begin()
	require.Error(t, h.ready(), "the first sync runs")
	h.end(nil)
	require.NoError(t, h.ready())

	h.end(errors.New("no iptables"))
	require.ErrorContains(t, h.ready(), "the last sync failed: no iptables")
	h.end(nil)
	require.NoError(t, h.ready(), "it recovers")

	h.good = time.Now().Add(-staleAfter - time.Second)
	require.ErrorContains(t, h.ready(), "the last good sync was 31s ago")
	h.begin()
	require.Error(t, h.ready(), "a sync that began is not yet a good one")

	h.unsynced = func() []string { return []string{"pods", "networkpolicies"} }
	h.end(nil)
	require.ErrorContains(t, h.ready(), "waiting for the API server to list pods, networkpolicies")

	h = syncedHealth()
	h.end(nil)
	h.leave()
	require.ErrorContains(t, h.ready(), "the agent was told to end")
	require.NoError(t, h.alive(), "and goes on enforcing until it has")
}

func TestAlive(t *testing.T) {
	h := syncedHealth()
	require.NoError(t, h.alive(), "waiting for the API server is no reason for a restart")
	h.begin()
	require.NoError(t, h.alive())
	h.running = time.Now().Add(-stuckAfter - time.Second)
	require.ErrorContains(t, h.alive(), "a sync hangs since 3m1s")
	h.end(errors.New("failed"))
	require.NoError(t, h.alive(), "a failure is no reason for a restart either")
}

// The node has one port for the agents of all installs. The kubelet asks it for each of
// them, and names the namespace that it means.
func TestReadinessIsOfOneInstall(t *testing.T) {
	h := syncedHealth()
	h.end(nil)
	ask := func(path, namespace string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set(namespaceHeader, namespace)
		h.handler(Holder{Namespace: "moat-system", Pod: "moat-agent-x"}).ServeHTTP(w, r)
		require.Equal(t, "moat-system/moat-agent-x", w.Header().Get(holderHeader))
		return w
	}
	require.Equal(t, http.StatusOK, ask("/readyz", "moat-system").Code)
	require.Equal(t, http.StatusOK, ask("/readyz", "").Code)
	other := ask("/readyz", "another")
	require.Equal(t, http.StatusServiceUnavailable, other.Code)
	require.Contains(t, other.Body.String(), "moat-system/moat-agent-x")
	require.Equal(t, http.StatusOK, ask("/healthz", "another").Code, "to wait is no reason for a restart")
}

func TestHealthServerSaysWhatIsWrong(t *testing.T) {
	h := syncedHealth()
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.handler(Holder{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	require.Equal(t, http.StatusOK, get("/healthz").Code)
	require.Equal(t, http.StatusServiceUnavailable, get("/readyz").Code)
	require.Contains(t, get("/readyz").Body.String(), "the first sync has not ended yet")
	h.end(nil)
	require.Equal(t, http.StatusOK, get("/readyz").Code)
	require.Equal(t, "ok\n", get("/readyz").Body.String())
}
