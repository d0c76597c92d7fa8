package chaos

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// occupyUDP keeps a port, so that the host doesn't answer probes with errors. Nobody
// reads what comes.
func occupyUDP(t *testing.T, e *endpoint, at netip.AddrPort) func() {
	t.Helper()
	var conn net.PacketConn
	require.NoError(t, e.Do(func() (err error) {
		conn, err = net.ListenPacket("udp", at.String())
		return err
	}))
	return func() { _ = conn.Close() }
}

// connection is a TCP connection of two real sockets, which stay idle: probes are
// acknowledgements beside them that both ends take for repeated.
type connection struct {
	client, server         net.Conn
	clientNext, serverNext uint32 // sequence numbers
}

func (c *connection) close() {
	_ = c.client.Close()
	_ = c.server.Close()
}

// listen returns the listener of an address. It is made once and stays open: a program
// that is being started holds a closed one's port for a moment.
func (s *scene) listen(t *testing.T, e *endpoint, at netip.AddrPort) net.Listener {
	t.Helper()
	if listener := s.listeners[at]; listener != nil {
		return listener
	}
	var listener net.Listener
	require.NoError(t, e.Do(func() (err error) {
		listener, err = net.Listen("tcp", at.String())
		return err
	}))
	s.listeners[at] = listener
	s.closers = append(s.closers, func() { _ = listener.Close() })
	return listener
}

// connectWithin is how long a connection may take to come about where nothing drops its
// packets.
const connectWithin = 10 * time.Second

func (s *scene) connect(t *testing.T, from, to *endpoint, client, server netip.AddrPort) *connection {
	t.Helper()
	c, err := s.tryConnect(t, from, to, client, server, connectWithin)
	require.NoError(t, err)
	return c
}

// tryConnect is connect where packets may be dropped.
func (s *scene) tryConnect(t *testing.T, from, to *endpoint, client, server netip.AddrPort, within time.Duration) (*connection, error) {
	t.Helper()
	listener, c := s.listen(t, to, server), &connection{}
	err := from.Do(func() (err error) {
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(client), KeepAlive: -1, Timeout: within}
		c.client, err = dialer.DialContext(context.Background(), "tcp", server.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	c.server, err = listener.Accept()
	require.NoError(t, err)
	c.clientNext, c.serverNext = nextSequence(t, c.client), nextSequence(t, c.server)
	return c, nil
}

// From linux/tcp.h.
const (
	tcpSendQueue      = 2
	tcpRepairOffQuiet = -1 // without telling the other end
)

// nextSequence returns the number of the next byte that a connection sends, which
// the kernel tells while the connection is under repair (CRIU's way to move one).
func nextSequence(t *testing.T, conn net.Conn) uint32 {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	var sequence int
	var errs error
	require.NoError(t, raw.Control(func(fd uintptr) {
		set := func(option, value int) {
			errs = errors.Join(errs, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, option, value))
		}
		set(unix.TCP_REPAIR, 1)
		set(unix.TCP_REPAIR_QUEUE, tcpSendQueue)
		value, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUEUE_SEQ)
		sequence, errs = value, errors.Join(errs, err)
		set(unix.TCP_REPAIR, tcpRepairOffQuiet)
	}))
	require.NoError(t, errs)
	return uint32(sequence)
}
