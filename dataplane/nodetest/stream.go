package nodetest

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

const (
	// every is the time between two messages of a stream.
	every = 5 * time.Millisecond

	// roomBytes is what a socket holds of datagrams: some ten thousand.
	roomBytes = 8 << 20

	// dialWithin bounds the making of a stream.
	dialWithin = 3 * time.Second
)

// Stream is the traffic of one connection: a message every five milliseconds, in one
// direction or in both, until the hosts are closed.
//
// The addresses may have zones. The net package remembers which interface has which name
// for the whole process, so it may ask only in namespaces of hosts, where all agree:
// nothing below sends to or tells an address elsewhere.
type Stream struct {
	// Up counts what goes to the server, Down what goes to the client.
	Up, Down Count
}

// Count is what was sent and what came.
type Count struct {
	sent, came, last atomic.Int64
}

// Came is the number of messages that arrived, for TCP of pieces.
func (c *Count) Came() int64 { return c.came.Load() }

// Missing is the number of messages that were sent and have not arrived. It means
// nothing for TCP.
func (c *Count) Missing() int64 {
	came := c.came.Load()
	return c.sent.Load() - came
}

// Last is when something arrived last.
func (c *Count) Last() time.Time { return time.Unix(0, c.last.Load()) }

func (c *Count) arrived() {
	c.came.Add(1)
	c.last.Store(time.Now().UnixNano())
}

// write sends messages until the connection is over.
func (c *Count) write(send func([]byte) (int, error)) {
	message := make([]byte, 16)
	for {
		c.sent.Add(1) // before it can have come
		_, err := send(message)
		if over(err) {
			return
		}
		if err != nil {
			c.sent.Add(-1)
		}
		time.Sleep(every)
	}
}

// read counts what comes until the connection is over.
func (c *Count) read(receive func([]byte) (int, error)) {
	buffer := make([]byte, 4096)
	for {
		_, err := receive(buffer)
		if over(err) {
			return
		}
		if err == nil {
			c.arrived()
		}
	}
}

// over tells the end of a connection from an ICMP error.
func over(err error) bool { return err != nil && !errors.Is(err, unix.ECONNREFUSED) }

// makeRoom lets a socket hold what comes while a busy machine doesn't run its reader.
func makeRoom(t testing.TB, conn any) {
	t.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, roomBytes)
	}))
	require.NoError(t, err)
}

// StreamTCP connects to an address and port, behind which is what the server listens
// on, and both sides write. Streams to the same target are made one after the other.
func StreamTCP(t testing.TB, client, server *Host, to, target netip.AddrPort) *Stream {
	t.Helper()
	s, opened, answered := streamTCP(t, client, server, to, target)
	go s.Up.write(opened.Write)
	go s.Up.read(answered.Read)
	return s
}

// StreamTCPDown is StreamTCP with a client that says nothing.
func StreamTCPDown(t testing.TB, client, server *Host, to, target netip.AddrPort) *Stream {
	t.Helper()
	s, _, _ := streamTCP(t, client, server, to, target)
	return s
}

func streamTCP(t testing.TB, client, server *Host, to, target netip.AddrPort) (s *Stream, opened, answered net.Conn) {
	t.Helper()
	listener := server.listenTCP(t, target)
	accepted := make(chan net.Conn, 1)
	go func() {
		var conn net.Conn
		_ = server.Do(func() (err error) {
			conn, err = listener.Accept()
			return err
		})
		accepted <- conn
	}()
	require.NoError(t, client.Do(func() (err error) {
		opened, err = net.DialTimeout("tcp", to.String(), dialWithin)
		return err
	}))
	answered = <-accepted
	require.NotNil(t, answered)
	client.atClose(func() { _ = opened.Close() })
	server.atClose(func() { _ = answered.Close() })
	s = &Stream{}
	go s.Down.write(answered.Write)
	go s.Down.read(opened.Read)
	return s, opened, answered
}

// listenTCP returns the listener of an address. It is made once and is open until the
// host is closed.
//
// A test must not close a listener and then listen at the same address. A program that
// any test of this process starts has copies of all its sockets until the kernel closes
// them in execve, so the port stays in use after the close. syscall.ForkLock doesn't
// help: Go releases it when vfork returns, and the kernel lets vfork return before it
// closes the files (fs/exec.c, begin_new_exec: exec_mmap, then do_close_on_exec).
func (h *Host) listenTCP(t testing.TB, at netip.AddrPort) net.Listener {
	t.Helper()
	h.mu.Lock()
	listener := h.listeners[at]
	h.mu.Unlock()
	if listener != nil {
		return listener
	}
	require.NoError(t, h.Do(func() (err error) {
		listener, err = net.Listen("tcp", at.String())
		return err
	}))
	h.atClose(func() { _ = listener.Close() })
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listeners == nil {
		h.listeners = map[netip.AddrPort]net.Listener{}
	}
	h.listeners[at] = listener
	return listener
}

// StreamUDP sends a datagram to an address and port, behind which is what the
// server listens on, and both sides send from then on.
func StreamUDP(t testing.TB, client, server *Host, to, target netip.AddrPort) *Stream {
	t.Helper()
	s, opened, answering := streamDown(t, client, server, to, target)
	go s.Up.write(opened.Write)
	go s.Up.read(answering.Read)
	return s
}

// StreamDown is StreamUDP with a client that says nothing after its first datagram.
func StreamDown(t testing.TB, client, server *Host, to, target netip.AddrPort) *Stream {
	t.Helper()
	s, _, _ := streamDown(t, client, server, to, target)
	return s
}

func streamDown(t testing.TB, client, server *Host, to, target netip.AddrPort) (s *Stream, opened, answering net.Conn) {
	t.Helper()
	var listener *net.UDPConn
	require.NoError(t, server.Do(func() error {
		addr, err := net.ResolveUDPAddr("udp", target.String())
		if err != nil {
			return err
		}
		listener, err = net.ListenUDP("udp", addr)
		return err
	}))
	server.atClose(func() { _ = listener.Close() })
	require.NoError(t, client.Do(func() (err error) {
		opened, err = dialUDP(to.Addr(), to.Port())
		return err
	}))
	client.atClose(func() { _ = opened.Close() })
	makeRoom(t, listener)
	makeRoom(t, opened)
	_, err := opened.Write([]byte("moat"))
	require.NoError(t, err)
	require.NoError(t, listener.SetReadDeadline(time.Now().Add(dialWithin)))
	require.NoError(t, connectBack(listener))
	require.NoError(t, listener.SetReadDeadline(time.Time{}))

	s = &Stream{}
	go s.Down.write(listener.Write)
	go s.Down.read(opened.Read)
	return s, opened, listener
}

// connectBack receives a datagram and connects the socket to who sent it.
func connectBack(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Read(func(fd uintptr) bool {
		_, from, err := unix.Recvfrom(int(fd), make([]byte, 16), 0)
		if err == nil {
			err = unix.Connect(int(fd), from)
		}
		failed = err
		return !errors.Is(err, unix.EAGAIN)
	})
	return errors.Join(err, failed)
}

// StreamPing sends echo requests with one identifier. Down counts the requests as
// sent and the answers as come.
func StreamPing(t testing.TB, client *Host, to netip.Addr) *Stream {
	t.Helper()
	var conn *net.IPConn
	request := echoRequest(8)
	reply := byte(0)
	network := "ip4:icmp"
	receive := func(b []byte) (int, error) {
		n, _, err := conn.ReadFrom(b) // without the IPv4 header
		return n, err
	}
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", echoRequest(128), 129
		receive = func(b []byte) (int, error) { return conn.Read(b) }
	}
	require.NoError(t, client.Do(func() (err error) {
		conn, err = net.DialIP(network, nil, &net.IPAddr{IP: to.AsSlice(), Zone: to.Zone()})
		return err
	}))
	client.atClose(func() { _ = conn.Close() })
	makeRoom(t, conn)
	s := &Stream{}
	go s.Down.write(func([]byte) (int, error) { return conn.Write(request) })
	go s.Down.read(func(b []byte) (int, error) {
		n, err := receive(b)
		if err == nil && (n < len(request) || b[0] != reply || !bytes.Equal(b[4:6], request[4:6])) {
			return n, unix.ECONNREFUSED // something else
		}
		return n, err
	})
	return s
}
