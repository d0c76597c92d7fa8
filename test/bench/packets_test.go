package bench

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// How long a packet takes through the node: one system call takes it all the way to the pod,
// and an answer back. A burst is short and after a rest, so that the kernel seldom gives the
// core to another program in its midst; of many bursts the lower quartile is compared.
const (
	packetBurst  = 100
	packetBursts = 60
	packetRest   = 5 * time.Millisecond

	tcpHeader = 20
	synPort   = tcpPort
)

// packets sends bursts, from one port to the next, and returns how long each took per
// packet.
type packets struct {
	from, to *nodetest.Host
	port     int // source port of the next
}

// newConnections sends the first packets of connections.
func (p *packets) newConnections(t testing.TB) []time.Duration {
	t.Helper()
	var took []time.Duration
	require.NoError(t, p.from.Do(func() error {
		socket, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(socket) }()
		address := &unix.SockaddrInet4{Addr: p.to.Addrs[0].As4()}
		took, err = bursts(func() error {
			p.port = firstPort + (p.port-firstPort+1)%ports
			return unix.Sendto(socket, newSYN(p.from.Addrs[0], p.to.Addrs[0], p.port), 0, address)
		})
		return err
	}))
	return took
}

// established sends packets of one connection.
func (p *packets) established(t testing.TB) []time.Duration {
	t.Helper()
	var in, out int
	require.NoError(t, p.to.Do(func() (err error) {
		in, err = listenUDP(udpPort)
		return err
	}))
	defer func() { _ = unix.Close(in) }()
	require.NoError(t, p.from.Do(func() (err error) {
		out, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Connect(out, &unix.SockaddrInet4{Port: udpPort, Addr: p.to.Addrs[0].As4()})
	}))
	defer func() { _ = unix.Close(out) }()
	buffer := make([]byte, message)
	_, err := unix.Write(out, buffer)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, from, err := unix.Recvfrom(in, buffer, 0)
		return err == nil && unix.Sendto(in, buffer, 0, from) == nil
	}, changeWithin, look, "no packet to be answered")
	took, err := bursts(func() error {
		_, err := unix.Write(out, buffer)
		return err
	})
	require.NoError(t, err)
	return took
}

// bursts sends packets and returns how long one takes in each burst.
func bursts(send func() error) ([]time.Duration, error) {
	var took []time.Duration
	for range packetBursts {
		time.Sleep(packetRest)
		start := time.Now()
		for range packetBurst {
			if err := send(); err != nil {
				return nil, err
			}
		}
		took = append(took, time.Since(start)/packetBurst)
	}
	return took, nil
}

// newSYN makes the first packet of a TCP connection to synPort (RFC 791, 9293). The kernel
// fills in the checksum of the IPv4 header.
func newSYN(from, to netip.Addr, port int) []byte {
	packet := make([]byte, ipHeader+tcpHeader)
	packet[0], packet[8], packet[9] = 0x45, 64, unix.IPPROTO_TCP
	copy(packet[12:], from.AsSlice())
	copy(packet[16:], to.AsSlice())
	segment := packet[ipHeader:]
	binary.BigEndian.PutUint16(segment, uint16(port))
	binary.BigEndian.PutUint16(segment[2:], synPort)
	segment[12], segment[13] = tcpHeader/4<<4, 2 // its length in words; SYN
	binary.BigEndian.PutUint16(segment[14:], 1024)
	// The sum is over the addresses, the protocol, the length, and the segment.
	sum := uint32(unix.IPPROTO_TCP + tcpHeader)
	for i := 12; i < len(packet); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(packet[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(segment[16:], ^uint16(sum+sum>>16))
	return packet
}
