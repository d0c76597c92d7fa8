package health

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func syncedHealth() *Checks {
	return &Checks{Unsynced: func() []string { return nil }, CutOff: func() error { return nil }}
}

func TestReady(t *testing.T) {
	h := syncedHealth()
	require.ErrorContains(t, h.Ready(), "the first sync has not ended yet")
	h.Begin()
	require.Error(t, h.Ready(), "the first sync runs")
	h.End(nil)
	require.NoError(t, h.Ready())

	h.End(errors.New("no iptables"))
	require.ErrorContains(t, h.Ready(), "the last sync failed: no iptables")
	h.End(nil)
	require.NoError(t, h.Ready(), "it recovers")

	h.good = time.Now().Add(-staleAfter - time.Second)
	require.ErrorContains(t, h.Ready(), "the last good sync was 31s ago")
	h.Begin()
	require.Error(t, h.Ready(), "a sync that began is not yet a good one")

	h.Unsynced = func() []string { return []string{"pods", "networkpolicies"} }
	h.End(nil)
	require.ErrorContains(t, h.Ready(), "waiting for the API server to list pods, networkpolicies")

	h = syncedHealth()
	h.End(nil)
	h.Leave()
	require.ErrorContains(t, h.Ready(), "the agent was told to end")
	require.NoError(t, h.Alive(), "and goes on enforcing until it has")
}

func TestAlive(t *testing.T) {
	h := syncedHealth()
	require.NoError(t, h.Alive(), "waiting for the API server is no reason for a restart")
	h.Begin()
	require.NoError(t, h.Alive())
	h.running = time.Now().Add(-stuckAfter - time.Second)
	require.ErrorContains(t, h.Alive(), "a sync hangs since 3m1s")
	h.End(errors.New("failed"))
	require.NoError(t, h.Alive(), "a failure is no reason for a restart either")
}

// The node has one port for the agents of all installs. The kubelet asks it for each of
// them, and names the namespace that it means.
func TestReadinessIsOfOneInstall(t *testing.T) {
	h := syncedHealth()
	h.End(nil)
	ask := func(path, namespace string) *httptest.ResponseRecorder {
		w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set(namespaceHeader, namespace)
		h.Handler(Holder{Namespace: "moat-system", Pod: "moat-agent-x"}).ServeHTTP(w, r)
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
		h.Handler(Holder{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	require.Equal(t, http.StatusOK, get("/healthz").Code)
	require.Equal(t, http.StatusServiceUnavailable, get("/readyz").Code)
	require.Contains(t, get("/readyz").Body.String(), "the first sync has not ended yet")
	h.End(nil)
	require.Equal(t, http.StatusOK, get("/readyz").Code)
	require.Equal(t, "ok\n", get("/readyz").Body.String())
}
