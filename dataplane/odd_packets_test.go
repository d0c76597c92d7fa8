package dataplane

import (
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// oddSender makes frames that no program sends, from one pod. The same seed makes the same
// frames.
type oddSender struct {
	*rand.Rand
	own       net.HardwareAddr
	macs      []net.HardwareAddr // of the pods and the node
	groups    []net.HardwareAddr
	addrs     []netip.Addr    // of both families: pods, nodes, groups, a Service, nobody
	known     map[bool][]byte // by whether it is IPv4: headers of a packet of a known connection
	ports     []uint16
	protocols []uint8
}

func newOddSender(seed uint64) *oddSender {
	return &oddSender{
		Rand:  rand.New(rand.NewPCG(seed, 0)),
		ports: []uint16{0, 53, 67, 68, 80, 4789, nodetest.OverlayPort, 10250, 40000},
		protocols: []uint8{
			unix.IPPROTO_ICMP, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6, unix.IPPROTO_ICMPV6, unix.IPPROTO_ICMPV6, unix.IPPROTO_TCP,
			unix.IPPROTO_UDP, unix.IPPROTO_SCTP, unix.IPPROTO_IGMP, unix.IPPROTO_IPIP, unix.IPPROTO_IPV6, unix.IPPROTO_GRE, unix.IPPROTO_ESP, unix.IPPROTO_UDPLITE,
		},
	}
}

func pickOdd[T any](o *oddSender, from []T) T { return from[o.IntN(len(from))] }

// frame returns a frame that has the data in it.
func (o *oddSender) frame(data []byte) []byte {
	data = append(data, make([]byte, pickOdd(o, []int{0, 8, 60, 200, 540, 1100})+o.IntN(16))...)
	kind, payload := o.packet(data)
	switch o.IntN(12) {
	case 0: // not what it says
		kind = pickOdd(o, []uint16{nodetest.EtherIPv4, nodetest.EtherIPv6, nodetest.EtherARP, 0x88b5, 0x8863, 0x86dd, 0x0026})
	case 1: // a tag of a VLAN, also of none
		tagged := binary.BigEndian.AppendUint16(nil, uint16(pickOdd(o, []int{0, 1, 7})))
		payload, kind = append(binary.BigEndian.AppendUint16(tagged, kind), payload...), pickOdd(o, []uint16{0x8100, 0x88a8})
	}
	from := o.own
	if o.IntN(4) == 0 {
		from = pickOdd(o, o.macs)
	}
	to := pickOdd(o, o.macs)
	if o.IntN(3) == 0 {
		to = pickOdd(o, o.groups)
	}
	return nodetest.Ethernet(from, to, kind, payload)
}

// packet returns an IP packet with odd headers, and its Ethernet type.
func (o *oddSender) packet(data []byte) (uint16, []byte) {
	to := pickOdd(o, o.addrs)
	from := pickOdd(o, o.addrs)
	if o.IntN(5) == 0 {
		from = to
	}
	for from.Is4() != to.Is4() {
		from = pickOdd(o, o.addrs)
	}
	p := nodetest.Packet{From: from, To: to, Protocol: pickOdd(o, o.protocols), Hops: pickOdd(o, []uint8{1, 2, 64, 254, 255, 255})}
	if o.IntN(8) == 0 {
		p.Protocol = uint8(o.IntN(256))
	}
	p.Payload = o.payload(&p, data)
	bytes := p.Bytes()
	if from.Is4() {
		return p.EtherType(), o.bend4(bytes)
	}
	return p.EtherType(), o.bend6(bytes)
}

// payload returns a header of the protocol with the data behind it.
func (o *oddSender) payload(p *nodetest.Packet, data []byte) []byte {
	switch p.Protocol {
	case unix.IPPROTO_ICMP:
		return o.icmp(p, pickOdd(o, []uint8{0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 17, uint8(o.IntN(256))}), data)
	case unix.IPPROTO_ICMPV6:
		return o.icmp(p, pickOdd(o, []uint8{1, 2, 3, 4, 128, 130, 131, 132, 133, 134, 135, 136, 137, 143, uint8(o.IntN(256))}), data)
	case unix.IPPROTO_TCP:
		header := make([]byte, 20)
		binary.BigEndian.PutUint16(header, pickOdd(o, o.ports))
		binary.BigEndian.PutUint16(header[2:], pickOdd(o, o.ports))
		header[12], header[13] = 0x50, byte(o.IntN(256))
		return append(header, data...)
	case unix.IPPROTO_UDP, unix.IPPROTO_UDPLITE, unix.IPPROTO_SCTP:
		return nodetest.UDP(pickOdd(o, o.ports), pickOdd(o, o.ports), data)
	case unix.IPPROTO_IPIP, unix.IPPROTO_IPV6:
		if o.IntN(2) == 0 {
			_, inner := o.packet(data)
			return inner
		}
	}
	return append(make([]byte, o.IntN(9)), data...)
}

// icmp quotes a packet of a known connection, or none.
func (o *oddSender) icmp(p *nodetest.Packet, icmpType uint8, data []byte) []byte {
	header := []byte{icmpType, byte(pickOdd(o, []int{0, 0, 1, 3, 4})), 0, 0, 0, 0, 5, 0}
	if o.IntN(2) == 0 {
		header = append(header, o.known[p.From.Is4()]...)
	}
	return append(header, data...)
}

// bend4 changes what nobody changes of an IPv4 header: fragments, lengths, options.
func (o *oddSender) bend4(packet []byte) []byte {
	switch o.IntN(8) {
	case 0:
		binary.BigEndian.PutUint16(packet[6:], uint16(o.IntN(1<<16)))
	case 1:
		binary.BigEndian.PutUint16(packet[2:], uint16(o.IntN(len(packet)+1)))
	case 2: // options, the last of them long
		options := append([]byte{0x46, 0, 0, 0}, packet[1:]...)
		copy(options[1:], packet[1:20])
		packet = append(append(options[:20:20], 0x94, 4, 0, 0), packet[20:]...)
		binary.BigEndian.PutUint16(packet[2:], uint16(len(packet)))
	default:
		return packet
	}
	binary.BigEndian.PutUint16(packet[10:], 0)
	binary.BigEndian.PutUint16(packet[10:], nodetest.Checksum(packet[:int(packet[0]&15)*4]))
	return packet
}

// bend6 puts extension headers between an IPv6 header and what it carries, or changes its
// length.
func (o *oddSender) bend6(packet []byte) []byte {
	switch o.IntN(6) {
	case 0:
		binary.BigEndian.PutUint16(packet[4:], uint16(o.IntN(len(packet))))
	case 1, 2:
		headers := []uint8{unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_FRAGMENT}
		for range 1 + o.IntN(3) {
			packet = o.extend(packet, pickOdd(o, headers))
		}
	}
	return packet
}

// extend puts one extension header of eight bytes behind the fixed one.
func (o *oddSender) extend(packet []byte, kind uint8) []byte {
	extension := []byte{packet[6], 0, 1, 4, 0, 0, 0, 0} // padding of four bytes
	if kind == unix.IPPROTO_FRAGMENT {
		extension = []byte{packet[6], 0, 0, byte(pickOdd(o, []int{0, 1, 8, 9})), 0, 0, 0, byte(o.IntN(256))}
	}
	extended := append(append(append([]byte(nil), packet[:40]...), extension...), packet[40:]...)
	extended[6] = kind
	binary.BigEndian.PutUint16(extended[4:], uint16(len(extended)-40))
	return extended
}
