package health

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Bounds of the health checks.
const (
	// stuckAfter is how long one pass may take before the agent counts as dead.
	// It is longer than all limits of a pass together.
	stuckAfter = 3 * time.Minute

	// staleAfter is how old the last good pass may be for a ready agent: a pass
	// is due every resyncEvery.
	staleAfter = 30 * time.Second
)

// Checks answers the kubelet's questions. It is safe for concurrent use.
type Checks struct {
	Unsynced func() []string // what the model still lacks; immutable
	CutOff   func() error    // says which watch hears nothing; immutable

	mu      sync.Mutex
	running time.Time // when the present pass began; zero between passes
	good    time.Time // when the last good pass ended
	err     error     // of the last pass

	unreachable error // why the API server doesn't answer, while the model lacks something
	leaving     bool  // the agent was told to end
}

// Leave notes that the agent was told to end. It stays alive until it has.
func (h *Checks) Leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.leaving = true
}

// Waiting notes why the model isn't complete yet.
func (h *Checks) Waiting(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unreachable = err
}

// Begin notes that a pass begins.
func (h *Checks) Begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = time.Now()
}

// End notes the outcome of a pass and reports whether it is the first good one,
// at all or after a bad one.
func (h *Checks) End(err error) (recovered bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	recovered = err == nil && (h.good.IsZero() || h.err != nil)
	h.running, h.err = time.Time{}, err
	if err == nil {
		h.good = time.Now()
	}
	return recovered
}

// Handler serves /healthz and /readyz. They answer 200 and "ok", or 503 and what
// is wrong: controller-runtime's own server withholds the reason. Every answer names
// the agent's pod.
func (h *Checks) Handler(holder Holder) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", Answer(h.Alive))
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, r *http.Request) {
		Answer(func() error { return errors.Join(holder.isAsked(r), h.Ready()) })(w, r)
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(holderHeader, holder.String())
		mux.ServeHTTP(w, r)
	})
}

// Answer serves 200 and "ok", or 503 and the error of the check.
func Answer(check func() error) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if err := check(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "ok\n")
	}
}

// Ready returns nil while the kernel holds what the API server holds, as far as the agent
// has heard of it in the last minutes.
func (h *Checks) Ready() error {
	missing := h.Unsynced()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.leaving:
		return errors.New("the agent was told to end")
	case len(missing) > 0 && h.unreachable != nil:
		return fmt.Errorf("waiting for the API server to list %s: %w", strings.Join(missing, ", "), h.unreachable)
	case len(missing) > 0:
		return fmt.Errorf("waiting for the API server to list %s", strings.Join(missing, ", "))
	case h.err != nil:
		return fmt.Errorf("the last sync failed: %w", h.err)
	case h.good.IsZero():
		return errors.New("the first sync has not ended yet")
	case time.Since(h.good) > staleAfter:
		return fmt.Errorf("the last good sync was %s ago", time.Since(h.good).Round(time.Second))
	}
	return h.CutOff()
}

// Alive returns nil while the sync loop moves on. An API server that is away is no reason
// for a restart.
func (h *Checks) Alive() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.running.IsZero() && time.Since(h.running) > stuckAfter {
		return fmt.Errorf("a sync hangs since %s", time.Since(h.running).Round(time.Second))
	}
	return nil
}
