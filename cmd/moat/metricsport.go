package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"
)

// Bounds of what other programs can make this one do by asking for its metrics. An agent's port
// is the node's: each program that reaches the node reaches the port.
const (
	scrapesAtOnce     = 2
	scrapeWithin      = 10 * time.Second
	connectionsAtOnce = 16
	requestWithin     = 5 * time.Second
	idleFor           = 30 * time.Second
	requestBytes      = 8 << 10

	// listenAgain is when a port that is taken is tried again.
	listenAgain = 10 * time.Second
)

// metricsLoginUsage describes the flag of both.
const metricsLoginUsage = "serve /metrics over TLS, to those alone who may get it: by a bearer token, of which the API server is asked"

// metricsPort serves the metrics of the agent or the operator. One whose port is taken says
// so and works all the same: metrics are no reason to leave a node without an agent.
type metricsPort struct {
	address string
	metrics prometheus.Gatherer
	rights  *scrapeRights // nil: everybody may read
	log     logr.Logger
	again   time.Duration
}

// newMetricsPort serves over TLS where there are rights.
func newMetricsPort(address string, metrics prometheus.Gatherer, rights *scrapeRights, log logr.Logger) *metricsPort {
	return &metricsPort{address: address, metrics: metrics, rights: rights, log: log, again: listenAgain}
}

// serveMetrics serves the metrics of controller-runtime's registry until the context ends,
// also while the API server is away. Without rights everybody may read them.
func serveMetrics(ctx context.Context, address string, rights *scrapeRights, log logr.Logger) {
	if address != noAddress {
		go newMetricsPort(address, ctrlmetrics.Registry, rights, log).run(ctx)
	}
}

// run serves until the context ends. What it can't do it logs and tries again.
func (p *metricsPort) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := p.serve(ctx); err != nil && ctx.Err() == nil {
			p.log.Error(err, "The metrics can't be served; all else goes on without", "address", p.address, "retryIn", p.again.String())
		}
		select {
		case <-ctx.Done():
		case <-time.After(p.again):
		}
	}
}

func (p *metricsPort) serve(ctx context.Context) error {
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", p.address)
	if err != nil {
		return fmt.Errorf("listening for scrapes: %w", err)
	}
	server := &http.Server{
		Handler:           p.handler(),
		ReadHeaderTimeout: requestWithin,
		ReadTimeout:       requestWithin,
		WriteTimeout:      2 * scrapeWithin,
		IdleTimeout:       idleFor,
		MaxHeaderBytes:    requestBytes,
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	p.log.Info("Serving the metrics", "address", listener.Addr().String())
	listener = netutil.LimitListener(listener, connectionsAtOnce)
	if p.rights != nil {
		secured, err := selfSigned()
		if err != nil {
			return errors.Join(err, listener.Close())
		}
		listener = tls.NewListener(listener, secured)
	}
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving scrapes: %w", err)
	}
	return nil
}

// handler answers /metrics. More scrapes at once than a few are told to come again.
func (p *metricsPort) handler() http.Handler {
	metrics := promhttp.HandlerFor(p.metrics, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.HTTPErrorOnError,
		MaxRequestsInFlight: scrapesAtOnce,
		Timeout:             scrapeWithin,
	})
	if p.rights != nil {
		metrics = p.rights.guard(metrics)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", metrics)
	return mux
}
