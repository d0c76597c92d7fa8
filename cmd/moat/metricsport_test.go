package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
)

// portWithin is long enough for anything that has no promise, on a busy machine.
const portWithin = time.Minute

// servePort runs a metricsPort until the test ends.
func servePort(t *testing.T, address string, metrics prometheus.Gatherer, rights *scrapeRights) {
	t.Helper()
	port := newMetricsPort(address, metrics, rights, logr.Discard())
	port.again = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { port.run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func freeAddress(t *testing.T) (net.Listener, string) {
	t.Helper()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return taken, taken.Addr().String()
}

func statusOf(address string) (int, string) {
	answer, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = answer.Body.Close() }()
	body, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(body)
}

// An agent whose metrics port another program has goes on, and serves once the port is free.
func TestATakenMetricsPortEndsNoAgent(t *testing.T) {
	taken, address := freeAddress(t)
	registry := prometheus.NewRegistry()
	registry.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: "moat_test", Help: "A test."}))
	servePort(t, address, registry, nil)
	time.AfterFunc(100*time.Millisecond, func() { _ = taken.Close() })
	require.Eventually(t, func() bool {
		code, body := statusOf(address)
		return code == http.StatusOK && len(body) > 0
	}, portWithin, 20*time.Millisecond)
	_, body := statusOf(address)
	require.Contains(t, body, "moat_test 0")
}

// slowMetrics answers only after it is released, and counts the requests at a time.
type slowMetrics struct {
	release    chan struct{}
	asks, most atomic.Int32
}

func (s *slowMetrics) Gather() ([]*dto.MetricFamily, error) {
	s.most.Store(max(s.most.Load(), s.asks.Add(1)))
	defer s.asks.Add(-1)
	<-s.release
	return nil, nil
}

// 100 scrapes at once make the agent gather its metrics for two of them.
func TestScrapesAtOnceAreBounded(t *testing.T) {
	free, address := freeAddress(t)
	require.NoError(t, free.Close())
	slow := &slowMetrics{release: make(chan struct{})}
	servePort(t, address, slow, nil)
	require.Eventually(t, func() bool { // it listens
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, portWithin, 20*time.Millisecond)
	var codes [600]atomic.Int32
	var scrapes sync.WaitGroup
	for range 100 {
		scrapes.Go(func() {
			code, _ := statusOf(address)
			codes[code].Add(1)
		})
	}
	require.Eventually(t, func() bool {
		return slow.asks.Load() == scrapesAtOnce && codes[http.StatusServiceUnavailable].Load() > 0
	},
		portWithin, 20*time.Millisecond)
	close(slow.release)
	scrapes.Wait()
	require.EqualValues(t, scrapesAtOnce, slow.most.Load())
	require.GreaterOrEqual(t, codes[http.StatusOK].Load(), int32(1))
}
