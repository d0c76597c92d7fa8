package chaos

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

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

func connect(t *testing.T, from, to *endpoint, client, server netip.AddrPort) *connection {
	t.Helper()
	c := &connection{}
	var listener net.Listener
	require.NoError(t, to.Do(func() (err error) {
		listener, err = net.Listen("tcp", server.String())
		return err
	}))
	defer func() { _ = listener.Close() }()
	require.NoError(t, from.Do(func() (err error) {
		dialer := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(client), KeepAlive: -1}
		c.client, err = dialer.DialContext(context.Background(), "tcp", server.String())
		return err
	}))
	var err error
	c.server, err = listener.Accept()
	require.NoError(t, err)
	c.clientNext, c.serverNext = nextSequence(t, c.client), nextSequence(t, c.server)
	return c
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
