package chaos

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Probes are whole IP packets. A socket would hide what this suite counts: it sends
// again what was lost, and it can't send in a connection that is cut.
//
// Each carries a mark: which stream it belongs to, and its number there. In UDP the
// mark is the payload; in TCP it is an option for experiments (RFC 6994), which
// every receiver ignores, so that a probe is a SYN or a plain acknowledgement.

// magic begins a mark. In TCP it is the experiment's identifier.
const magic = 0x6d6f6174 // "moat"

// Lengths.
const (
	ipv4Header  = 20
	ipv6Header  = 40
	udpHeader   = 8
	tcpHeader   = 20
	markLength  = 16 // magic, stream, number
	markOption  = 2 + markLength
	tcpProbe    = tcpHeader + markOption + 2 // padded to words
	tcpNoOp     = 1
	tcpOptKind  = 253
	udpProbe    = udpHeader + markLength
	tcpFlagSYN  = 0x02
	tcpFlagACK  = 0x10
	probeWindow = 500
)

// packet is a probe. Its bytes are made once, and numbered again for each sending.
type packet struct {
	bytes     []byte
	transport int // where TCP or UDP begins
	mark      int // where the mark's number begins
	protocol  byte
	fresh     bool // each number is a connection of its own: another source port
}

// flow is what a probe's headers say. Without SYN or ACK it is UDP.
type flow struct {
	from, to netip.AddrPort
	flags    byte
	seq, ack uint32
}

func newPacket(f flow, stream uint32) *packet {
	p := &packet{protocol: unix.IPPROTO_UDP}
	length := udpProbe
	if f.flags != 0 {
		p.protocol, length = unix.IPPROTO_TCP, tcpProbe
	}
	if f.from.Addr().Is4() {
		p.transport, p.bytes = ipv4Header, ipv4(f, p.protocol, length)
	} else {
		p.transport, p.bytes = ipv6Header, ipv6(f, p.protocol, length)
	}
	b := p.bytes[p.transport:]
	binary.BigEndian.PutUint16(b[0:], f.from.Port())
	binary.BigEndian.PutUint16(b[2:], f.to.Port())
	mark := udpHeader
	if p.protocol == unix.IPPROTO_TCP {
		binary.BigEndian.PutUint32(b[4:], f.seq)
		binary.BigEndian.PutUint32(b[8:], f.ack)
		b[12], b[13] = tcpProbe/4<<4, f.flags
		binary.BigEndian.PutUint16(b[14:], probeWindow)
		b[tcpHeader], b[tcpHeader+1] = tcpOptKind, markOption
		b[tcpProbe-2], b[tcpProbe-1] = tcpNoOp, tcpNoOp
		mark = tcpHeader + 2
	} else {
		binary.BigEndian.PutUint16(b[4:], udpProbe)
	}
	binary.BigEndian.PutUint32(b[mark:], magic)
	binary.BigEndian.PutUint32(b[mark+4:], stream)
	p.mark = p.transport + mark + 8
	return p
}

// ipv4 returns a packet with its IP header alone. The kernel adds the identifier
// and the checksum.
func ipv4(f flow, protocol byte, length int) []byte {
	b := make([]byte, ipv4Header+length)
	b[0], b[8], b[9] = 0x45, 64, protocol
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], f.from.Addr().AsSlice())
	copy(b[16:], f.to.Addr().AsSlice())
	return b
}

func ipv6(f flow, protocol byte, length int) []byte {
	b := make([]byte, ipv6Header+length)
	b[0], b[6], b[7] = 0x60, protocol, 64
	binary.BigEndian.PutUint16(b[4:], uint16(length))
	copy(b[8:], f.from.Addr().AsSlice())
	copy(b[24:], f.to.Addr().AsSlice())
	return b
}

// Source ports of fresh connections. The kernel forgets a connection of the suite
// within seconds (see quickToForget), and a port comes back after 50.
const (
	firstSource = 10000
	sources     = 50000
)

// number makes the packet the one of a number.
func (p *packet) number(n uint64) []byte {
	binary.BigEndian.PutUint64(p.bytes[p.mark:], n)
	b := p.bytes[p.transport:]
	if p.fresh {
		binary.BigEndian.PutUint16(b[0:], uint16(firstSource+n%sources))
	}
	at := 6
	if p.protocol == unix.IPPROTO_TCP {
		at = 16
		if p.fresh {
			binary.BigEndian.PutUint32(b[4:], uint32(n))
		}
	}
	binary.BigEndian.PutUint16(b[at:], 0)
	binary.BigEndian.PutUint16(b[at:], checksum(p.addresses(), p.protocol, b))
	return p.bytes
}

// addresses are both addresses, as they stand in the IP header.
func (p *packet) addresses() []byte {
	if p.transport == ipv4Header {
		return p.bytes[12:20]
	}
	return p.bytes[8:40]
}

// checksum is that of TCP and UDP (RFC 9293, 3.1; RFC 8200, 8.1). 0 means that
// there is none, and is sent as its complement.
func checksum(addresses []byte, protocol byte, segment []byte) uint16 {
	sum := uint32(protocol) + uint32(len(segment))
	for _, part := range [][]byte{addresses, segment} {
		for i := 0; i+1 < len(part); i += 2 {
			sum += uint32(part[i])<<8 | uint32(part[i+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	if sum == 0xffff {
		return 0xffff
	}
	return ^uint16(sum)
}

// seen is what a captured packet says: a probe, or the answer to a SYN.
type seen struct {
	stream uint32
	number uint64

	answer   bool           // a SYN ACK: instead of the stream
	from, to netip.AddrPort // there is who sent it to whom, and the number's low 32 bits
}

// parse reads a packet without its link header.
func parse(b []byte) (seen, bool) {
	protocol, from, to, b, ok := parseIP(b)
	if !ok || len(b) < udpHeader {
		return seen{}, false
	}
	mark := udpHeader
	if protocol == unix.IPPROTO_TCP {
		if len(b) < tcpHeader {
			return seen{}, false
		}
		if b[13] == tcpFlagSYN|tcpFlagACK {
			return seen{
				answer: true, number: uint64(binary.BigEndian.Uint32(b[8:]) - 1),
				from: netip.AddrPortFrom(from, binary.BigEndian.Uint16(b[0:])),
				to:   netip.AddrPortFrom(to, binary.BigEndian.Uint16(b[2:])),
			}, true
		}
		mark = tcpHeader + 2
	}
	if len(b) < mark+markLength || binary.BigEndian.Uint32(b[mark:]) != magic {
		return seen{}, false
	}
	return seen{stream: binary.BigEndian.Uint32(b[mark+4:]), number: binary.BigEndian.Uint64(b[mark+8:])}, true
}

func parseIP(b []byte) (protocol byte, from, to netip.Addr, rest []byte, ok bool) {
	switch {
	case len(b) >= ipv4Header && b[0] == 0x45:
		return b[9], netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[ipv4Header:], true
	case len(b) >= ipv6Header && b[0]>>4 == 6:
		return b[6], netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[ipv6Header:], true
	}
	return 0, netip.Addr{}, netip.Addr{}, nil, false
}

func TestPacketsReadBack(t *testing.T) {
	for _, addrs := range [][2]string{{"10.244.1.10", "10.244.2.10"}, {"fd00::1", "fd00::2"}} {
		for _, flags := range []byte{0, tcpFlagSYN, tcpFlagACK} {
			f := flow{
				from: netip.AddrPortFrom(netip.MustParseAddr(addrs[0]), 1000), to: netip.AddrPortFrom(netip.MustParseAddr(addrs[1]), 80), flags: flags,
			}
			p := newPacket(f, 7)
			for _, n := range []uint64{0, 1, 65535, 1 << 33} {
				b := p.number(n)
				got, ok := parse(b)
				require.True(t, ok)
				require.Equal(t, seen{stream: 7, number: n}, got)
				segment := b[p.transport:]
				at := map[byte]int{unix.IPPROTO_TCP: 16, unix.IPPROTO_UDP: 6}[p.protocol]
				want := binary.BigEndian.Uint16(segment[at:])
				binary.BigEndian.PutUint16(segment[at:], 0)
				require.Equal(t, want, checksum(p.addresses(), p.protocol, segment))
			}
			_, ok := parse(p.bytes[:len(p.bytes)-markLength])
			require.False(t, ok, "too short")
		}
	}
}
