package chaos

import (
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// endpoint is a host that sends probes and captures those that come. Its sockets
// stay in its network whoever uses them, so one thread sends for all.
type endpoint struct {
	*nodetest.Host
	name string

	raw4, raw6 int // sockets that take whole IP packets
	capture    int // what comes by any of its links, as it is on the wire

	mu     sync.Mutex // guards the capture: a closed one's number may be another's
	closed bool

	lost uint64 // packets that the capture had no room for
}

// captureBuffer holds some seconds of probes: a busy machine must not lose them.
const captureBuffer = 32 << 20

// newEndpoint opens the sockets in the host's network. It may have no link yet.
func newEndpoint(t testing.TB, host *nodetest.Host, name string) *endpoint {
	t.Helper()
	e := &endpoint{Host: host, name: name, raw4: -1, raw6: -1, capture: -1}
	require.NoError(t, host.Do(func() (err error) {
		if e.raw4, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return fmt.Errorf("opening a raw socket: %w", err)
		}
		if e.raw6, err = unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return fmt.Errorf("opening a raw socket: %w", err)
		}
		e.capture, err = openCapture()
		return err
	}))
	return e
}

// openCapture opens a socket that gets every packet that comes, without link header.
func openCapture() (int, error) {
	everything := int(bits.ReverseBytes16(unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, everything)
	if err != nil {
		return -1, fmt.Errorf("opening a capture: %w", err)
	}
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBuffer) != nil {
		// In a user namespace the machine's limit holds.
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, captureBuffer)
	}
	return fd, errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1))
}

func (e *endpoint) close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for _, fd := range []int{e.raw4, e.raw6, e.capture} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

// send sends a whole packet.
func (e *endpoint) send(packet []byte, to netip.Addr) error {
	if to.Is4() {
		return unix.Sendto(e.raw4, packet, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: to.As4()})
	}
	return unix.Sendto(e.raw6, packet, unix.MSG_DONTWAIT, &unix.SockaddrInet6{Addr: to.As16()})
}

// missed returns how many packets the capture had no room for since it was asked
// last.
func (e *endpoint) missed() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return 0
	}
	stats, err := unix.GetsockoptTpacketStats(e.capture, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil {
		return 0
	}
	return uint64(stats.Drops)
}
