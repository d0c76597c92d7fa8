// Package nodetest builds small real networks out of network namespaces: a node
// with a bridge, pods on it, and hosts elsewhere. Tests send packets through them
// and see what the kernel makes of the rules.
//
// The namespaces have no names: they go when the test's process goes, however it
// ends.
package nodetest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Host is a network namespace.
type Host struct {
	ns    netns.NsHandle
	Addrs []netip.Addr

	mu        sync.Mutex
	closers   []func()
	listeners map[netip.AddrPort]net.Listener // of streams
}

// RequireKernel skips a test that can't make network namespaces, with the reason.
// In CI nothing may be skipped, but with -short.
func RequireKernel(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("needs network namespaces, which -short leaves out")
	}
	if os.Geteuid() == 0 {
		return
	}
	const reason = "needs root, or a user namespace: unshare --user --map-root-user --net"
	if os.Getenv("CI") != "" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// newHost makes a namespace with its loopback up.
func newHost(t testing.TB) *Host {
	t.Helper()
	h := &Host{}
	require.NoError(t, onThread(func() error {
		ns, err := netns.New()
		if err != nil {
			return fmt.Errorf("making a network namespace: %w", err)
		}
		h.ns = ns
		// Link-local addresses that wait for duplicate address detection keep
		// neighbours from being found for a second.
		for _, conf := range []string{"all", "default"} {
			if err := SetSysctl("ipv6/conf/"+conf+"/accept_dad", "0"); err != nil {
				return err
			}
		}
		return linkUp("lo")
	}))
	h.atClose(func() { _ = h.ns.Close() })
	t.Cleanup(h.Close)
	return h
}

// Close ends what the host serves and gives its namespace up, which it also does
// when the test ends.
func (h *Host) Close() {
	h.mu.Lock()
	closers := h.closers
	h.closers, h.listeners = nil, nil
	h.mu.Unlock()
	for _, closer := range slices.Backward(closers) {
		closer()
	}
}

// atClose runs a function when the host is closed, before those that it was given
// earlier.
func (h *Host) atClose(closer func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closers = append(h.closers, closer)
}

// Do runs a function on a thread of its own inside of the namespace. Programs
// that it starts and sockets that it opens are in the namespace too.
func (h *Host) Do(do func() error) error {
	return onThread(func() error {
		if err := netns.Set(h.ns); err != nil {
			return fmt.Errorf("entering a network namespace: %w", err)
		}
		return do()
	})
}

// OpenNamespace opens the file of the namespace, as a path of it would be opened.
func (h *Host) OpenNamespace() (*os.File, error) {
	fd, err := unix.FcntlInt(uintptr(h.ns), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening a network namespace: %w", err)
	}
	return os.NewFile(uintptr(fd), "netns"), nil
}

// onThread runs a function on a thread that ends with it: a thread that changed
// its namespace must not serve anything else. Where the function ends its goroutine, as a
// failed requirement does, the caller's ends too: a test fails then and doesn't hang.
func onThread(do func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer close(result)
		result <- do()
	}()
	err, returned := <-result
	if !returned {
		runtime.Goexit()
	}
	return err
}

// Addr returns the host's address of the family that the other address has.
func (h *Host) Addr(like netip.Addr) netip.Addr {
	for _, addr := range h.Addrs {
		if addr.Is4() == like.Is4() {
			return addr
		}
	}
	return netip.Addr{}
}

// ServeTCP accepts connections on a port of every address until the host is closed,
// and says to each what it sees of it.
func (h *Host) ServeTCP(t testing.TB, port uint16) {
	t.Helper()
	require.NoError(t, h.Do(func() error {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		h.atClose(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = fmt.Fprintln(conn, conn.RemoteAddr(), conn.LocalAddr())
				_ = conn.Close()
			}
		}()
		return nil
	}))
}

// ServeUDP answers datagrams on a port of every address until the host is closed,
// with the address that it sees them come from.
func (h *Host) ServeUDP(t testing.TB, port uint16) {
	t.Helper()
	require.NoError(t, h.Do(func() error {
		conn, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		h.atClose(func() { _ = conn.Close() })
		go func() {
			buffer := make([]byte, 1500)
			for {
				_, from, err := conn.ReadFrom(buffer)
				if err != nil {
					return
				}
				_, _ = conn.WriteTo([]byte(from.String()), from)
			}
		}()
		return nil
	}))
}

// TCP reports whether a connection to the address and port comes about.
func (h *Host) TCP(to netip.Addr, port uint16, within time.Duration) bool {
	return h.Do(func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, port).String(), within)
		if err != nil {
			return err
		}
		return conn.Close()
	}) == nil
}

// ServeBytes sends a number of bytes to each program that connects to a port of any address,
// until the host is closed.
func (h *Host) ServeBytes(t testing.TB, port uint16, size int) {
	t.Helper()
	require.NoError(t, h.Do(func() error {
		listener, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err != nil {
			return err
		}
		h.atClose(func() { _ = listener.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				go func() {
					_, _ = conn.Write(make([]byte, size))
					_ = conn.Close()
				}()
			}
		}()
		return nil
	}))
}

// ReadTCP connects to the address and port and returns how many bytes come.
func (h *Host) ReadTCP(to netip.Addr, port uint16, within time.Duration) int {
	var size int64
	_ = h.Do(func() error {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(to, port).String(), within)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
			return err
		}
		size, err = io.Copy(io.Discard, conn)
		return err
	})
	return int(size)
}

// UDP reports whether a datagram to the address and port is answered.
func (h *Host) UDP(to netip.Addr, port uint16, within time.Duration) bool {
	return h.Do(func() error {
		conn, err := dialUDP(to, port)
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		// A busy kernel loses datagrams, those for example that wait for a neighbour.
		for end := time.Now().Add(within); time.Now().Before(end); {
			if _, err := conn.Write([]byte("moat")); err != nil {
				return err
			}
			if err := conn.SetReadDeadline(earlier(end, time.Now().Add(udpAgain))); err != nil {
				return err
			}
			_, err := conn.Read(make([]byte, 16))
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				return err
			}
		}
		return os.ErrDeadlineExceeded
	}) == nil
}

// udpAgain is how long an answer to a datagram may take before it is sent again.
const udpAgain = time.Second

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Source ports of datagrams: those that the kernel gives to clients.
const (
	firstSource = 32768
	sources     = 28000
)

var lastSource atomic.Uint32

// dialUDP connects from a port that no other probe had for long. One that the
// kernel picks may be that of an earlier probe, whose connection the datagram would
// then belong to, and pass with it.
func dialUDP(to netip.Addr, port uint16) (net.Conn, error) {
	for {
		dialer := net.Dialer{LocalAddr: &net.UDPAddr{Port: int(firstSource + lastSource.Add(1)%sources)}}
		conn, err := dialer.Dial("udp", netip.AddrPortFrom(to, port).String())
		if !errors.Is(err, unix.EADDRINUSE) {
			return conn, err
		}
	}
}

// Ping reports whether an echo request is answered.
func (h *Host) Ping(to netip.Addr, within time.Duration) bool {
	return h.Do(func() error { return ping(to, within) }) == nil
}

func ping(to netip.Addr, within time.Duration) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	conn, err := net.DialIP(network, nil, &net.IPAddr{IP: to.AsSlice()})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	message := echoRequest(request)
	if _, err := conn.Write(message); err != nil {
		return err
	}
	buffer := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFrom(buffer) // without the IPv4 header
		if err != nil {
			return err
		}
		// Before it is connected, the socket also gets the answers to the host's
		// other requests: only the identifier tells them apart.
		if n >= len(message) && buffer[0] == reply && bytes.Equal(buffer[4:6], message[4:6]) {
			return nil
		}
	}
}

// lastEcho is the identifier of the last echo request. Each has its own: one that
// comes twice would belong to the connection of the first.
var lastEcho atomic.Uint32

// echoRequest returns an ICMP echo request (RFC 792). For ICMPv6 the kernel
// replaces the checksum.
func echoRequest(icmpType byte) []byte {
	id := uint16(lastEcho.Add(1))
	message := []byte{icmpType, 0, 0, 0, byte(id >> 8), byte(id), 0, 1}
	var sum uint32
	for i := 0; i < len(message); i += 2 {
		sum += uint32(message[i])<<8 | uint32(message[i+1])
	}
	sum = sum>>16 + sum&0xffff
	message[2], message[3] = byte(^sum>>8), byte(^sum)
	return message
}
