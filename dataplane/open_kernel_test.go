package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// The tests of this file show what docs/security.md says is open. Where one fails, something
// was closed: then the document has to say so.

// noVLAN is the tag of VLAN 0, which says nothing but a priority.
const noVLAN = 0x8100

// experimental is an Ethernet type that nobody has (IEEE 802).
const experimental = 0x88b5

// await returns the next frame or text; it fails the test where none comes in time.
func await[T any](t *testing.T, box <-chan T, about string) (came T) {
	t.Helper()
	select {
	case came = <-box:
	case <-time.After(answerWithin):
		require.Fail(t, "nothing came", about)
	}
	return came
}

// takeOver is the frame by which a host tells another that an address is at its own link.
func takeOver(own, to net.HardwareAddr, addr, victim netip.Addr) []byte {
	if addr.Is6() {
		solicitation := append(make([]byte, 8), victim.AsSlice()...)
		solicitation[0] = 135
		solicitation = append(append(solicitation, 1, 1), own...) // source link-layer address
		packet := nodetest.Packet{From: addr, To: victim, Protocol: unix.IPPROTO_ICMPV6, Hops: 255, Payload: solicitation}
		return nodetest.Ethernet(own, to, nodetest.EtherIPv6, packet.Bytes())
	}
	request := []byte{0, 1, 8, 0, 6, 4, 0, 1} // who has victim, tell addr (RFC 826)
	request = append(append(request, own...), addr.AsSlice()...)
	request = append(append(request, make([]byte, 6)...), victim.AsSlice()...)
	return nodetest.Ethernet(own, to, nodetest.EtherARP, request)
}

// A closed pod with CAP_NET_RAW takes an allowed client's address on its own bridge, and reads the
// answers.
func TestARPTakesAClientsAddress(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := oddEnds(t, backend)
		p := newPost(s, "a", "server", "open")
		for _, client := range s.hosts["open"].Addrs {
			server := s.hosts["server"].Addr(client)
			s.knownFlow("open", "server", client, 40000) // the server knows where the client is
			answer := netip.AddrPortFrom(client, 4321).String()
			box := s.hosts["a"].Frames(t, func(frame []byte) bool { return bytes.Contains(frame, []byte(answer)) })
			query := nodetest.Packet{From: client, To: server, Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(4321, 53, []byte("query"))}
			forged := nodetest.Ethernet(p.macs["a"], p.macs["server"], query.EtherType(), query.Bytes())
			require.NoError(t, p.senders["a"](forged))
			select {
			case <-box:
				require.Fail(t, "the answer goes to the client")
			case <-time.After(silentAfter):
			}
			require.NoError(t, p.senders["a"](takeOver(p.macs["a"], p.macs["server"], client, server)))
			require.NoError(t, p.senders["a"](forged))
			await(t, box, "the answer to "+answer)
		}
	})
}

// Frames that aren't IP pass between closed pods of a bridge, whatever they hold, and so do
// packets to addresses that neither has.
func TestFramesThatAreNotIPPass(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.sync()
		p := newPost(s, "a", "b")
		for _, kind := range []uint16{nodetest.EtherARP, experimental} {
			data := fmt.Appendf(nil, "%s of type %#x", mark, kind)
			require.NoError(t, p.senders["a"](nodetest.Ethernet(p.macs["a"], p.macs["b"], kind, append(data, make([]byte, 1000)...))))
			require.Contains(t, string(await(t, p.boxes["b"], string(data))), string(data))
		}
		for i, strange := range []string{"192.0.2.1", "2001:db8::1"} {
			p.send("a", "b", p.macs["b"], true, nodetest.Packet{
				From: netip.MustParseAddr([]string{"192.0.2.2", "2001:db8::2"}[i]), To: netip.MustParseAddr(strange),
				Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(80, 80, p.payload(1000)),
			}, "to %s", strange)
		}
		p.requireDelivery()
	})
}

// Tagged frames pass, and the receiver takes off tags of VLAN 0: a program of a closed pod gets
// what is in them.
func TestTaggedFramesPass(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.sync()
		p := newPost(s, "a", "b")
		box := listen(t, s.hosts["b"])
		for _, to := range s.hosts["b"].Addrs {
			for tags := 1; tags <= 2; tags++ {
				text := fmt.Sprintf("%d tags to %s", tags, to)
				packet := nodetest.Packet{From: s.hosts["a"].Addr(to), To: to, Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(80, groupPort, []byte(text))}
				kind, payload := packet.EtherType(), packet.Bytes()
				for range tags {
					payload = append(binary.BigEndian.AppendUint16([]byte{0, 0}, kind), payload...)
					kind = noVLAN
				}
				require.NoError(t, p.senders["a"](nodetest.Ethernet(p.macs["a"], p.macs["b"], kind, payload)))
				require.Equal(t, text, await(t, box, text))
			}
		}
	})
}

// The node quotes a packet that it can't pass on to the one who is forged as its sender, closed
// or not: 548 bytes in IPv4, 1,232 in IPv6, headers included.
func TestTheNodeQuotesForgedPackets(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.pod("default", "away", nil, "10.244.2.10", "fd00:10:244:2::10")
		s.sync()
		p := newPost(s, "a", "b")
		for i, quoted := range []int{548, 1232} {
			packet := nodetest.Packet{
				From: s.hosts["b"].Addrs[i], To: s.hosts["away"].Addrs[i], Protocol: unix.IPPROTO_UDP, Hops: 1, Payload: nodetest.UDP(80, 80, p.payload(1400)),
			}
			frame := nodetest.Ethernet(p.macs["a"], p.bridge, packet.EtherType(), packet.Bytes())
			require.NoError(t, p.senders["a"](frame))
			came := await(t, p.boxes["b"], "an error of the node")
			headers := len(came) - quoted // Ethernet, IP, ICMP
			require.Equal(t, []int{14 + 20 + 8, 14 + 40 + 8}[i], headers)
			same := came[headers+20*(i+1):] // routers change the headers
			require.True(t, bytes.HasPrefix(frame[14+20*(i+1):], same))
		}
	})
}

// A pod with CAP_NET_RAW speaks to a closed pod of its bridge as that pod itself, through a
// Service of it, and has others answer to it.
func TestANeighbourSpeaksAsAPod(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.apply(strings.Replace(closed, "[Ingress, Egress]", "[Ingress]", 1))
		s.sync()
		p := newPost(s, "a", "b", "open")
		services := []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::10")}
		for i, b := range s.hosts["b"].Addrs {
			s.service([]string{string(backend), strings.Replace(string(backend), "iptables", "ip6tables", 1)}[i], "b", b, services[i], false)
			p.send("a", "b", p.bridge, true, nodetest.Packet{
				From: b, To: services[i], Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(4000, 80, p.payload(64)),
			}, "as %s to its Service", b)
			answer := netip.AddrPortFrom(b, 4321).String()
			box := s.hosts["b"].Frames(t, func(frame []byte) bool { return bytes.Contains(frame, []byte(answer)) })
			query := nodetest.Packet{From: b, To: s.hosts["open"].Addrs[i], Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(4321, 53, []byte("query"))}
			require.NoError(t, p.senders["a"](nodetest.Ethernet(p.macs["a"], p.macs["open"], query.EtherType(), query.Bytes())))
			await(t, box, "the answer to "+answer)
		}
		p.requireDelivery()
	})
}

// An address that a closed pod gave itself is open on its bridge.
func TestAnAddressWithoutTheAPIsKnowledgeIsOpen(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.guardNode()
		s.sync()
		for _, addr := range []string{"192.168.5.5/32", "fd00:5::5/128"} {
			runIn(t, s.hosts["b"], "ip", "addr", "add", addr, "dev", "eth0", "nodad")
			runIn(t, s.hosts["open"], "ip", "route", "add", addr, "dev", "eth0")
			require.True(t, s.hosts["open"].TCP(netip.MustParsePrefix(addr).Addr(), 80, answerWithin), s.dump())
		}
		require.False(t, s.hosts["open"].TCP(s.hosts["b"].Addrs[0], 80, silentAfter))
	})
}
