package nodetest

import (
	"context"
	"net"
	"sync"
)

// Road is a way over which connections go and that can be cut, as by a network that loses
// all packets: no program is told, and what was sent arrives when the road is whole again. It
// is safe for concurrent use.
type Road struct {
	mu    sync.Mutex
	cut   bool
	whole *sync.Cond
}

// NewRoad returns one that is whole.
func NewRoad() *Road {
	r := &Road{}
	r.whole = sync.NewCond(&r.mu)
	return r
}

// Cut cuts the road.
func (r *Road) Cut() { r.set(true) }

// Mend makes the road whole again.
func (r *Road) Mend() { r.set(false) }

func (r *Road) set(cut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cut = cut
	r.whole.Broadcast()
}

func (r *Road) pass() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.cut {
		r.whole.Wait()
	}
}

// Dial connects over the road.
func (r *Road) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	r.pass()
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return r.Over(conn), nil
}

// Over returns a connection that goes over the road.
func (r *Road) Over(conn net.Conn) net.Conn { return roadConn{conn, r} }

type roadConn struct {
	net.Conn
	road *Road
}

func (c roadConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.road.pass()
	return n, err
}

func (c roadConn) Write(p []byte) (int, error) {
	c.road.pass()
	return c.Conn.Write(p)
}
