package nodetest

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// SCTP without SCTP sockets, which not every kernel has: the first two packets of
// an association (RFC 9260, 5.1), INIT and INIT ACK, over raw sockets.

// sctpNetworks are the raw sockets for SCTP's protocol number, 132.
var sctpNetworks = []string{"ip4:132", "ip6:132"}

// Types of chunks.
const (
	sctpInit    = 1
	sctpInitAck = 2
)

// sctpPacket is a packet with one chunk, which is an INIT or an INIT ACK.
type sctpPacket struct {
	from, to uint16 // ports
	tag      uint32 // verification tag: the initiate tag of who receives; 0 in an INIT
	chunk    byte
	initiate uint32 // initiate tag of who sends
}

const (
	sctpHeader = 12
	sctpLength = sctpHeader + 20
)

// castagnoli is the polynomial of SCTP's checksum (RFC 9260, appendix A).
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (p sctpPacket) bytes() []byte {
	b := make([]byte, sctpLength)
	binary.BigEndian.PutUint16(b[0:], p.from)
	binary.BigEndian.PutUint16(b[2:], p.to)
	binary.BigEndian.PutUint32(b[4:], p.tag)
	b[12] = p.chunk
	binary.BigEndian.PutUint16(b[14:], sctpLength-sctpHeader)
	binary.BigEndian.PutUint32(b[16:], p.initiate)
	binary.BigEndian.PutUint32(b[20:], 64<<10) // receive window
	binary.BigEndian.PutUint16(b[24:], 1)      // outbound streams
	binary.BigEndian.PutUint16(b[26:], 1)      // inbound streams
	binary.BigEndian.PutUint32(b[28:], 1)      // first sequence number
	// The checksum is over the packet with a checksum of 0, and unlike all else it
	// is sent with the low byte first.
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, castagnoli))
	return b
}

func parseSCTP(b []byte) (sctpPacket, bool) {
	if len(b) < sctpLength {
		return sctpPacket{}, false
	}
	return sctpPacket{
		from: binary.BigEndian.Uint16(b[0:]), to: binary.BigEndian.Uint16(b[2:]), tag: binary.BigEndian.Uint32(b[4:]),
		chunk: b[12], initiate: binary.BigEndian.Uint32(b[16:]),
	}, true
}

// ServeSCTP answers requests for an association on a port of every address until
// the host is closed.
func (h *Host) ServeSCTP(t testing.TB, port uint16) {
	t.Helper()
	for _, network := range sctpNetworks {
		require.NoError(t, h.Do(func() error {
			conn, err := net.ListenIP(network, nil)
			if err != nil {
				return fmt.Errorf("listening for SCTP: %w", err)
			}
			h.atClose(func() { _ = conn.Close() })
			go answerSCTP(conn, port)
			return nil
		}))
	}
}

func answerSCTP(conn *net.IPConn, port uint16) {
	buffer := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buffer) // without the IPv4 header
		if err != nil {
			return
		}
		request, ok := parseSCTP(buffer[:n])
		if !ok || request.chunk != sctpInit || request.to != port {
			continue
		}
		answer := sctpPacket{from: port, to: request.from, tag: request.initiate, chunk: sctpInitAck, initiate: 1}
		_, _ = conn.WriteTo(answer.bytes(), from)
	}
}

// SCTP reports whether a request for an association is answered.
func (h *Host) SCTP(to netip.Addr, port uint16, within time.Duration) bool {
	return h.sctp(to, port, within, func([]byte) {})
}

// DamagedSCTP is like SCTP, with a request whose checksum is wrong. Conntrack calls
// such a packet INVALID and forgets it.
func (h *Host) DamagedSCTP(to netip.Addr, port uint16, within time.Duration) bool {
	return h.sctp(to, port, within, func(packet []byte) { packet[8] ^= 0xff })
}

// lastAssociation makes each request another connection than those before: it is
// its source port and its initiate tag.
var lastAssociation atomic.Uint32

func (h *Host) sctp(to netip.Addr, port uint16, within time.Duration, damage func([]byte)) bool {
	network := sctpNetworks[0]
	if to.Is6() {
		network = sctpNetworks[1]
	}
	id := lastAssociation.Add(1)
	request := sctpPacket{from: uint16(1024 + id%60000), to: port, chunk: sctpInit, initiate: 1<<16 + id}
	return h.Do(func() error {
		conn, err := net.DialIP(network, nil, &net.IPAddr{IP: to.AsSlice()})
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
			return err
		}
		packet := request.bytes()
		damage(packet)
		if _, err := conn.Write(packet); err != nil {
			return err
		}
		return awaitSCTP(conn, request)
	}) == nil
}

func awaitSCTP(conn *net.IPConn, request sctpPacket) error {
	buffer := make([]byte, 1500)
	for {
		n, _, err := conn.ReadFrom(buffer)
		if err != nil {
			return err
		}
		answer, ok := parseSCTP(buffer[:n])
		if ok && answer.chunk == sctpInitAck && answer.to == request.from && answer.tag == request.initiate {
			return nil
		}
	}
}
