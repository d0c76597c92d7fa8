package podstart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
	"github.com/go-logr/logr"
)

// The plugin's name among the runtime's plugins, and its place: behind plugins that change a pod,
// since it changes none.
const (
	pluginName  = "moat"
	pluginIndex = "90"
)

// Bounds of the plugin.
const (
	// holdAtMost is how long a pod's start is held. By default, a runtime waits for two
	// seconds (api.DefaultPluginRequestTimeout), and holds the starts of all other pods
	// during that time.
	holdAtMost = 1500 * time.Millisecond

	// stopAtMost is how long a pod's end is held.
	stopAtMost = 500 * time.Millisecond

	// retryFirst and retryMost bound the wait before the next attempt to connect,
	// which doubles. A runtime that restarts is back within a second or two, and
	// starts pods at once.
	retryFirst = 100 * time.Millisecond
	retryMost  = 5 * time.Second

	// letGo is how long the clean-up of an ended connection may take.
	letGo = 2 * time.Second
)

// Keeper gets the sandboxes of the node. Its methods may be called concurrently.
type Keeper interface {
	// Replace takes all sandboxes that run. Earlier calls don't count any longer.
	Replace(sandboxes []Sandbox)

	// Start takes a sandbox whose containers don't run yet, and returns when they
	// may run. At the end of the context they start in any case.
	Start(ctx context.Context, sandbox Sandbox)

	// Stop takes a sandbox that ended, and returns when its addresses may get a new
	// owner. At the end of the context they may in any case. It may be called again for
	// the same sandbox.
	Stop(ctx context.Context, sandbox Sandbox)

	// Connection says that the runtime holds the starts of pods (nil) or why it doesn't: a
	// SilentError where it is connected and tells no addresses of pods.
	Connection(err error)
}

// Plugin keeps a connection to the runtime's NRI socket.
type Plugin struct {
	socket string
	keeper Keeper
	log    logr.Logger
}

// New makes a plugin that isn't connected yet.
func New(socket string, keeper Keeper, log logr.Logger) *Plugin {
	return &Plugin{socket: socket, keeper: keeper, log: log.WithName("podstart")}
}

// Run connects, and connects again whenever the connection ends, until the context
// ends. It never gives up: NRI may be switched on at any time.
func (p *Plugin) Run(ctx context.Context) {
	wait := retryFirst
	for ctx.Err() == nil {
		connected, err := p.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		p.keeper.Connection(err)
		if connected {
			wait = retryFirst
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMost)
	}
}

// serve makes one connection and returns why it ended, and whether the runtime
// had accepted the plugin.
func (p *Plugin) serve(ctx context.Context) (connected bool, err error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, "unix", p.socket)
	if err != nil {
		return false, fmt.Errorf("connecting to the container runtime's NRI: %w", err)
	}
	conn := &watchedConn{Conn: raw, closed: make(chan struct{})}
	defer func() { _ = conn.Close() }()
	s := &session{plugin: p}
	connection, err := stub.New(s,
		stub.WithPluginName(pluginName), stub.WithPluginIdx(pluginIndex),
		stub.WithConnection(conn), stub.WithLogger(&quietLogger{p.log}),
		stub.WithOnClose(func() {}),
		// A runtime that has this policy stays connected to a plugin that was late.
		stub.WithFailurePolicy(&api.FailurePolicy{KeepConnected: true}),
	)
	if err != nil {
		return false, fmt.Errorf("making the NRI plugin: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- connection.Run(ctx) }()
	err = awaitEnd(ctx, conn, ended)
	return s.accepted(), err
}

// awaitEnd waits for the end of a connection. Where the connection ends in the middle of the
// registration, the stub never returns, so awaitEnd gives it up after letGo.
func awaitEnd(ctx context.Context, conn *watchedConn, ended <-chan error) error {
	var err error
	select {
	case err = <-ended:
	case <-conn.closed:
	case <-ctx.Done():
	}
	_ = conn.Close()
	if err == nil {
		select {
		case err = <-ended:
		case <-time.After(letGo):
		}
	}
	if err == nil {
		err = errors.New("the container runtime closed the connection")
	}
	return fmt.Errorf("serving the container runtime's NRI: %w", err)
}

// watchedConn says when a connection can't be read any longer.
type watchedConn struct {
	net.Conn
	once   sync.Once
	closed chan struct{}
}

func (c *watchedConn) end() { c.once.Do(func() { close(c.closed) }) }

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil {
		c.end()
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.end()
	return c.Conn.Close()
}
