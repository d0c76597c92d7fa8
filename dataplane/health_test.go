package dataplane

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func syncedHealth() *health { return &health{unsynced: func() []string { return nil }} }

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

func TestHealthServerSaysWhatIsWrong(t *testing.T) {
	h := syncedHealth()
	get := func(path string) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.server("").Server.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		return w
	}
	require.Equal(t, http.StatusOK, get("/healthz").Code)
	require.Equal(t, http.StatusServiceUnavailable, get("/readyz").Code)
	require.Contains(t, get("/readyz").Body.String(), "the first sync has not ended yet")
	h.end(nil)
	require.Equal(t, http.StatusOK, get("/readyz").Code)
	require.Equal(t, "ok\n", get("/readyz").Body.String())
}
