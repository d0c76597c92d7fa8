package watch

import (
	"bufio"
	"context"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
	"k8s.io/client-go/rest"
)

// How often an agent reads from its connection to the API server. To wake for each
// event of a busy cluster costs more than what is done about it, so that after
// gatherAfter reads in a row events are gathered for gatherFor. After quiet, each is
// read at once.
const (
	gatherFor   = 50 * time.Millisecond
	gatherAfter = 10

	// readMost is the most bytes of one read. One that is full says that a list comes
	// in, and the next ones don't rest.
	readMost = 64 << 10

	// receiveMost is how much the kernel keeps in the meantime, in bytes, so that a rest
	// doesn't slow a list down: by itself it begins with room for 64 KiB. It is as much as
	// an HTTP/2 stream may send before it is read.
	receiveMost = 4 << 20
)

// GatherEvents makes an agent's connections to the API server read what comes in bursts
// together. It takes CAP_NET_ADMIN to make room for it; without, nothing changes.
func GatherEvents(config *rest.Config) {
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		var room atomic.Bool // the addresses of a name are tried at once
		dialer := &net.Dialer{
			Timeout: 30 * time.Second, KeepAlive: 30 * time.Second, // as without Dial
			// Before it connects: the size says which windows the two ends agree on.
			Control: func(_, _ string, socket syscall.RawConn) error {
				return socket.Control(func(fd uintptr) {
					room.Store(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveMost) == nil)
				})
			},
		}
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil || !room.Load() {
			return conn, err
		}
		return gatherReads(conn), nil
	}
}

// gatheringConn is a connection that is read by one goroutine, as those of HTTP are.
type gatheringConn struct {
	net.Conn
	buffered *bufio.Reader
	limit    *rate.Limiter
}

func gatherReads(conn net.Conn) net.Conn {
	c := &gatheringConn{Conn: conn, limit: newReadLimit()}
	c.buffered = bufio.NewReaderSize(readFunc(c.fill), readMost)
	return c
}

func newReadLimit() *rate.Limiter { return rate.NewLimiter(rate.Every(gatherFor), gatherAfter) }

// Read implements net.Conn.
func (c *gatheringConn) Read(p []byte) (int, error) { return c.buffered.Read(p) }

// fill reads what is there, or waits for the next byte.
func (c *gatheringConn) fill(p []byte) (int, error) {
	time.Sleep(c.limit.Reserve().Delay())
	n, err := c.Conn.Read(p)
	if n >= readMost {
		c.limit = newReadLimit()
	}
	return n, err
}

// readFunc is a function as an io.Reader.
type readFunc func([]byte) (int, error)

func (r readFunc) Read(p []byte) (int, error) { return r(p) }
