package dataplane

import (
	"bufio"
	"context"
	"net"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/client-go/rest"
)

// How often an agent reads from its connection to the API server. To wake for each
// event of a busy cluster costs more than all that is done about it, so that after
// gatherAfter reads in a row events are gathered for gatherFor. After quiet, each is
// read at once.
const (
	gatherFor   = 25 * time.Millisecond
	gatherAfter = 10

	// gatherMost is the most bytes of one read. A read of so many says that more wait, as
	// while a list comes in, and the next one doesn't.
	gatherMost = 64 << 10
)

// GatherEvents makes an agent's connections to the API server read what comes in bursts
// together.
func GatherEvents(config *rest.Config) {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second} // as without Dial
	config.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return gatherReads(conn), nil
	}
}

// gatheringConn is a connection that is read by one goroutine, as those of HTTP are.
type gatheringConn struct {
	net.Conn
	buffered *bufio.Reader
	limit    *rate.Limiter
	full     bool // the last read was as large as it could be
}

func gatherReads(conn net.Conn) net.Conn {
	c := &gatheringConn{Conn: conn, limit: rate.NewLimiter(rate.Every(gatherFor), gatherAfter)}
	c.buffered = bufio.NewReaderSize(reader(c.fill), gatherMost)
	return c
}

// Read implements net.Conn.
func (c *gatheringConn) Read(p []byte) (int, error) { return c.buffered.Read(p) }

// fill reads what is there, or waits for the next byte.
func (c *gatheringConn) fill(p []byte) (int, error) {
	if !c.full {
		time.Sleep(c.limit.Reserve().Delay())
	}
	n, err := c.Conn.Read(p)
	c.full = n == len(p)
	return n, err
}

// reader is a function as an io.Reader.
type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }
