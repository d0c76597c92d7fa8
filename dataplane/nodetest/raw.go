package nodetest

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Ethernet types of frames.
const (
	EtherIPv4 = unix.ETH_P_IP
	EtherIPv6 = unix.ETH_P_IPV6
	EtherARP  = unix.ETH_P_ARP
)

// pollEvery is how long a read of a raw socket waits before it looks whether the socket is
// still wanted.
const pollEvery = 50 * time.Millisecond

// MAC returns the link-layer address of an interface of the host.
func (h *Host) MAC(t testing.TB, name string) net.HardwareAddr {
	t.Helper()
	var mac net.HardwareAddr
	require.NoError(t, h.Do(func() error {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		mac = link.Attrs().HardwareAddr
		return nil
	}))
	return mac
}

// rawSocket opens a packet socket on eth0 of the host, until the host is closed.
func (h *Host) rawSocket(t testing.TB, protocol uint16) int {
	t.Helper()
	var fd int
	require.NoError(t, h.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(bigEndian(protocol))); err != nil {
			return fmt.Errorf("opening a packet socket: %w", err)
		}
		wait := unix.NsecToTimeval(pollEvery.Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(protocol), Ifindex: link.Attrs().Index})
	}))
	return fd
}

func bigEndian(n uint16) uint16 { return n<<8 | n>>8 }

// FrameSender returns what sends whole frames by the host's eth0.
func (h *Host) FrameSender(t testing.TB) func(frame []byte) error {
	t.Helper()
	fd := h.rawSocket(t, 0)
	h.atClose(func() { _ = unix.Close(fd) })
	return func(frame []byte) error {
		_, err := unix.Write(fd, frame)
		return err
	}
}

// Frames returns the frames that come to the host by eth0 from now on, those to other
// hosts left out. keep says which of them; it must not keep the slice.
func (h *Host) Frames(t testing.TB, keep func(frame []byte) bool) <-chan []byte {
	t.Helper()
	fd := h.rawSocket(t, unix.ETH_P_ALL)
	frames, done, ended := make(chan []byte, 4096), make(chan struct{}), make(chan struct{})
	h.atClose(func() {
		close(done)
		<-ended
		_ = unix.Close(fd)
	})
	go func() {
		defer close(ended)
		buffer := make([]byte, 65536)
		for {
			select {
			case <-done:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, buffer, 0)
			if err != nil {
				continue // nothing came within pollEvery
			}
			link, ok := from.(*unix.SockaddrLinklayer)
			if !ok || link.Pkttype == unix.PACKET_OUTGOING || link.Pkttype == unix.PACKET_OTHERHOST || !keep(buffer[:n]) {
				continue
			}
			select {
			case frames <- append([]byte(nil), buffer[:n]...):
			case <-done:
				return
			}
		}
	}()
	return frames
}

// Ethernet returns a frame.
func Ethernet(from, to net.HardwareAddr, kind uint16, payload []byte) []byte {
	frame := make([]byte, 0, 14+len(payload))
	frame = append(append(frame, to...), from...)
	return append(binary.BigEndian.AppendUint16(frame, kind), payload...)
}

// Packet is an IP packet without options. Its family is that of the addresses.
type Packet struct {
	From, To netip.Addr
	Protocol uint8
	Hops     uint8 // TTL or hop limit
	Payload  []byte
}

// EtherType is the Ethernet type of the packet's family.
func (p *Packet) EtherType() uint16 {
	if p.From.Is4() {
		return EtherIPv4
	}
	return EtherIPv6
}

// Bytes returns the packet. The checksum of ICMP, ICMPv6, UDP and TCP in the payload is filled in.
func (p *Packet) Bytes() []byte {
	payload := p.withChecksum()
	if p.From.Is4() {
		header := make([]byte, 20)
		header[0], header[8], header[9] = 0x45, p.Hops, p.Protocol
		binary.BigEndian.PutUint16(header[2:], uint16(20+len(payload)))
		copy(header[12:], p.From.AsSlice())
		copy(header[16:], p.To.AsSlice())
		binary.BigEndian.PutUint16(header[10:], Checksum(header))
		return append(header, payload...)
	}
	header := make([]byte, 40)
	header[0], header[6], header[7] = 0x60, p.Protocol, p.Hops
	binary.BigEndian.PutUint16(header[4:], uint16(len(payload)))
	copy(header[8:], p.From.AsSlice())
	copy(header[24:], p.To.AsSlice())
	return append(header, payload...)
}

// checksumAt is where the checksum is in the payload of each protocol.
var checksumAt = map[uint8]int{unix.IPPROTO_ICMP: 2, unix.IPPROTO_ICMPV6: 2, unix.IPPROTO_UDP: 6, unix.IPPROTO_TCP: 16}

func (p *Packet) withChecksum() []byte {
	payload := append([]byte(nil), p.Payload...)
	at, known := checksumAt[p.Protocol]
	if !known || len(payload) < at+2 {
		return payload
	}
	payload[at], payload[at+1] = 0, 0
	var pseudo []byte
	if p.Protocol != unix.IPPROTO_ICMP {
		pseudo = append(append(pseudo, p.From.AsSlice()...), p.To.AsSlice()...)
		pseudo = binary.BigEndian.AppendUint32(pseudo, uint32(len(payload)))
		pseudo = append(pseudo, 0, 0, 0, p.Protocol)
	}
	binary.BigEndian.PutUint16(payload[at:], Checksum(append(pseudo, payload...)))
	return payload
}

// Checksum is that of RFC 1071.
func Checksum(bytes []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(bytes); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(bytes[i:]))
	}
	if len(bytes)%2 == 1 {
		sum += uint32(bytes[len(bytes)-1]) << 8
	}
	for sum>>16 != 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// UDP returns a datagram for the payload of a Packet.
func UDP(from, to uint16, data []byte) []byte {
	datagram := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint16(datagram, from)
	binary.BigEndian.PutUint16(datagram[2:], to)
	binary.BigEndian.PutUint16(datagram[4:], uint16(8+len(data)))
	return append(datagram, data...)
}

// VXLAN returns the payload of a datagram that carries a frame (RFC 7348, 5).
func VXLAN(vni uint32, frame []byte) []byte {
	header := []byte{8, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(header[4:], vni<<8)
	return append(header, frame...)
}
