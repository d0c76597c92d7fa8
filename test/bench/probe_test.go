package bench

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// A stream is a datagram every millisecond, each from another source port and so a
// new connection to the node, which its rules judge. The kernel forgets such a
// connection after 30 seconds, before its port comes again.
//
// The datagrams go through a raw socket: no port is opened for them, and one system
// call sends one.

const (
	streamEvery   = time.Millisecond
	firstPort     = 5000
	ports         = 60000
	ipHeader      = 20
	udpHeader     = 8
	streamPayload = 16 // its number, and when it was sent in nanoseconds of the run
)

// since is the clock of a run: one process sends and receives.
func since() time.Duration { return time.Since(started) }

// arrival is a datagram that came through.
type arrival struct {
	number         int64
	sent, received time.Duration
}

// stream sends from one host to a port of another.
type stream struct {
	stopped atomic.Bool
	ended   sync.WaitGroup
	sent    atomic.Int64 // how many

	mu       sync.Mutex
	arrivals []arrival // in the order of their coming, since it was last cleared
}

// startStream starts a stream to the port udpPort, which lasts until the test ends or
// it is stopped.
func startStream(t testing.TB, from, to *nodetest.Host) *stream {
	t.Helper()
	s := &stream{}
	var in, out int
	require.NoError(t, to.Do(func() (err error) {
		in, err = listenUDP(udpPort)
		return err
	}))
	require.NoError(t, from.Do(func() (err error) {
		out, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}))
	s.ended.Go(func() { s.receive(in) })
	s.ended.Go(func() { s.send(out, from.Addrs[0], to.Addrs[0]) })
	t.Cleanup(s.stop)
	return s
}

func (s *stream) stop() {
	s.stopped.Store(true)
	s.ended.Wait()
}

// receiveTimeout is how long a receiver may not notice that it should end.
const receiveTimeout = 50 * time.Millisecond

// listenUDP listens on a port of all addresses. The stream that listened there before
// may still be bound for a moment: a program that is being started has a copy of the
// socket until execve closes it. The kernel gives datagrams to who came last.
func listenUDP(port int) (int, error) {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(socket, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return 0, err
	}
	timeout := unix.NsecToTimeval(int64(receiveTimeout))
	if err := unix.SetsockoptTimeval(socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return 0, err
	}
	return socket, unix.Bind(socket, &unix.SockaddrInet4{Port: port})
}

func (s *stream) receive(socket int) {
	defer func() { _ = unix.Close(socket) }()
	buffer := make([]byte, 64)
	for !s.stopped.Load() {
		n, _, err := unix.Recvfrom(socket, buffer, 0)
		if err != nil || n < streamPayload {
			continue
		}
		a := arrival{
			number:   int64(binary.BigEndian.Uint64(buffer)),
			sent:     time.Duration(binary.BigEndian.Uint64(buffer[8:])),
			received: since(),
		}
		s.mu.Lock()
		s.arrivals = append(s.arrivals, a)
		s.mu.Unlock()
	}
}

func (s *stream) send(socket int, from, to netip.Addr) {
	defer func() { _ = unix.Close(socket) }()
	packet, address := newDatagram(from, to, streamPayload), &unix.SockaddrInet4{Addr: to.As4()}
	next := since()
	for number := int64(0); !s.stopped.Load(); number++ {
		if wait := next - since(); wait > 0 {
			sleep := unix.NsecToTimespec(int64(wait))
			_ = unix.Nanosleep(&sleep, nil)
		}
		now := since()
		next = max(next+streamEvery, now) // what is missed is not made up for
		setSource(packet, firstPort+int(number%ports))
		binary.BigEndian.PutUint64(packet[ipHeader+udpHeader:], uint64(number))
		binary.BigEndian.PutUint64(packet[ipHeader+udpHeader+8:], uint64(now))
		_ = unix.Sendto(socket, packet, 0, address) // The rules of its own node may refuse one.
		s.sent.Store(number)
	}
}

// newDatagram makes a UDP datagram with its IPv4 header (RFC 791, 768). The kernel
// fills in the header's checksum; UDP needs none.
func newDatagram(from, to netip.Addr, payload int) []byte {
	packet := make([]byte, ipHeader+udpHeader+payload)
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_UDP
	copy(packet[12:], from.AsSlice())
	copy(packet[16:], to.AsSlice())
	binary.BigEndian.PutUint16(packet[ipHeader+2:], udpPort)
	binary.BigEndian.PutUint16(packet[ipHeader+4:], uint16(udpHeader+payload))
	return packet
}

func setSource(packet []byte, port int) { binary.BigEndian.PutUint16(packet[ipHeader:], uint16(port)) }

// clear forgets what arrived.
func (s *stream) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrivals = nil
}

// firstSince returns the first datagram to arrive that was sent after a time.
func (s *stream) firstSince(start time.Duration) (arrival, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.arrivals {
		if a.sent > start {
			return a, true
		}
	}
	return arrival{}, false
}

// last returns the last that arrived.
func (s *stream) last() (arrival, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.arrivals) == 0 {
		return arrival{}, false
	}
	return s.arrivals[len(s.arrivals)-1], true
}
