package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/go-logr/logr"

	"github.com/moat-dev/moat/dataplane/backoff"
)

// Headers of the health checks.
const (
	// holderHeader of an answer names the pod that gives it.
	holderHeader = "Moat-Agent"

	// namespaceHeader of a question names the namespace of the agent that is meant: the
	// kubelet asks the node's one port for each agent of the node.
	namespaceHeader = "Moat-Namespace"
)

// Times of the health port.
const (
	// portPoll is how often an agent that waits for the port tries to get it.
	portPoll = 100 * time.Millisecond

	// portNotice is how often it says whom it waits for.
	portNotice = 5 * time.Second

	// headerWithin is how long a client of the health checks may take to ask.
	headerWithin = 10 * time.Second

	// healthWait is how long a running agent may take to answer.
	healthWait = 3 * time.Second
)

// Holder is the pod of the agent that holds a node's health port.
type Holder struct {
	Namespace, Pod string // empty where they aren't known
}

// String names the pod as NAMESPACE/NAME.
func (h Holder) String() string {
	if h.Pod == "" {
		return "an agent that does not know the name of its pod"
	}
	return h.Namespace + "/" + h.Pod
}

// isAsked returns nil if the question is for the holder's agent.
func (h Holder) isAsked(r *http.Request) error {
	if meant := r.Header.Get(namespaceHeader); meant != "" && h.Namespace != "" && meant != h.Namespace {
		return fmt.Errorf("the agent of namespace %s waits: the agent of this node is pod %s", meant, h)
	}
	return nil
}

// Port is an agent's claim on its node: while an agent holds the address, no other
// one writes to the kernel.
type Port struct {
	listener net.Listener
	holder   Holder
	server   *http.Server
}

// Claim waits until the address is free and takes it. While another agent has
// it, the log names that agent's pod. When the context ends it returns the context's
// error.
func Claim(ctx context.Context, address string, holder Holder, log logr.Logger) (*Port, error) {
	var said time.Time
	for {
		listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		if err == nil {
			return &Port{listener: listener, holder: holder}, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("listening for health checks: %w", err)
		}
		if time.Since(said) >= portNotice {
			said = time.Now()
			log.Info("Waiting for the health port, and writing nothing to the kernel until then: another agent of this node has it", "address", address, "heldBy", HeldBy(ctx, address))
		}
		if !backoff.Sleep(ctx, portPoll) {
			return nil, ctx.Err()
		}
	}
}

// Serve answers the health checks until Close.
func (p *Port) Serve(checks *Checks) { p.ServeHandler(checks.Handler(p.holder)) }

// ServeHandler answers by the handler until Close.
func (p *Port) ServeHandler(handler http.Handler) {
	p.server = &http.Server{Handler: handler, ReadHeaderTimeout: headerWithin}
	go func() { _ = p.server.Serve(p.listener) }() // ends with Close
}

// Close gives the address back: another agent may begin.
func (p *Port) Close() {
	if p.server != nil {
		_ = p.server.Close()
	}
	_ = p.listener.Close()
}

// HeldBy says who answers at the address.
func HeldBy(ctx context.Context, address string) string {
	header, answered := Ask(ctx, address)
	switch holder := header.Get(holderHeader); {
	case !answered:
		return "a program that does not answer as an agent does"
	case holder == "":
		return "an agent of an older version"
	default:
		return holder
	}
}

// Ask asks the health check at the address and returns the answer's header, if
// an agent answers. It dials by itself since an http.Client does so on a thread of its
// own, which may be in another network namespace.
func Ask(ctx context.Context, address string) (header http.Header, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, healthWait)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, false
	}
	defer func() { _ = conn.Close() }()
	deadline, _ := ctx.Deadline()
	if conn.SetDeadline(deadline) != nil {
		return nil, false
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/healthz", http.NoBody)
	if err != nil || request.Write(conn) != nil {
		return nil, false
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), request)
	if err != nil {
		return nil, false
	}
	_ = response.Body.Close()
	return response.Header, response.StatusCode == http.StatusOK || response.StatusCode == http.StatusServiceUnavailable
}

// Stay answers the kubelet's probes at the address with "ok" until the context ends:
// a pod that cleaned its node is ready as long as it is there.
func Stay(ctx context.Context, healthAddress string) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", healthAddress)
	if err != nil {
		return fmt.Errorf("listening for the kubelet's probes: %w", err)
	}
	clean := Answer(func() error { return nil })
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", clean)
	mux.HandleFunc("/readyz", clean)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: healthWait}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("answering the kubelet's probes: %w", err)
	}
	return nil
}
