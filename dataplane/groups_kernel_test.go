package dataplane

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// broadcastMAC is the link-layer address of everybody on a link.
var broadcastMAC = net.HardwareAddr{255, 255, 255, 255, 255, 255}

// TCP flags.
const (
	flagSYN = 0x02
	flagPSH = 0x08
	flagACK = 0x10
)

// segment returns the header of a TCP segment with the data behind it.
func segment(from, to uint16, flags byte, data []byte) []byte {
	header := make([]byte, 20, 20+len(data))
	header[0], header[1], header[2], header[3] = byte(from>>8), byte(from), byte(to>>8), byte(to)
	header[7], header[11] = 1, 1 // numbers that fit each other
	header[12], header[13], header[14] = 0x50, flags, 0x20
	return append(header, data...)
}

// A frame to a group of hosts also goes to the node itself, where the kernel takes what it
// carries for a connection that was let through (Linux 62e7151ae3eb). A packet to one host
// in such a frame opens nothing, whichever end answers.
func TestNoFrameToAGroupOpensAConnection(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.sync()
		p := newPost(s, "a", "b")
		port := uint16(4000)
		for i, a := range s.hosts["a"].Addrs {
			b := s.hosts["b"].Addrs[i]
			for name, group := range map[string]net.HardwareAddr{
				"broadcast": broadcastMAC, "multicast": {1, 0, 0x5e, 0, 0, 1}, "IPv6 multicast": {0x33, 0x33, 0, 0, 0, 1},
			} {
				for _, protocol := range []uint8{unix.IPPROTO_UDP, unix.IPPROTO_TCP} {
					port++
					send := func(from string, mac net.HardwareAddr, forged bool, flags byte) {
						packet := nodetest.Packet{From: a, To: b, Protocol: protocol, Hops: 64}
						source, destination := port, uint16(80)
						if forged || from == "b" {
							packet.From, packet.To, source, destination = b, a, 80, port
						}
						packet.Payload = nodetest.UDP(source, destination, p.payload(64))
						if protocol == unix.IPPROTO_TCP {
							packet.Payload = segment(source, destination, flags, p.payload(64))
						}
						to := map[string]string{"a": "b", "b": "a"}[from]
						p.send(from, to, mac, false, packet, "%s, protocol %d, %s to %s, from %s, flags %#x", name, protocol, packet.From, packet.To, from, flags)
					}
					send("a", group, false, flagSYN)
					send("a", p.bridge, true, flagSYN|flagACK)
					send("a", p.macs["b"], false, flagPSH|flagACK)
					send("b", p.macs["a"], false, flagPSH|flagACK)
				}
			}
		}
		p.requireDelivery()
	})
}

// A connection that such a frame opened while no pod was isolated is cut like any other.
func TestConnectionsOfFramesToGroupsAreCut(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.remove("closed")
		stop := s.runAgent()
		defer func() { stop() }()
		p := newPost(s, "a", "b")
		both := func(passes bool) {
			for i, a := range s.hosts["a"].Addrs {
				p.send("a", "b", p.macs["b"], passes, nodetest.Packet{
					From: a, To: s.hosts["b"].Addrs[i], Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(4000, 80, p.payload(64)),
				}, "in the connection of %s", a)
			}
			p.requireDelivery()
		}
		for i, a := range s.hosts["a"].Addrs {
			b := s.hosts["b"].Addrs[i]
			p.send("a", "b", broadcastMAC, true, nodetest.Packet{
				From: a, To: b, Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(4000, 80, p.payload(64)),
			}, "the first to %s", b)
			p.send("b", "a", p.macs["a"], true, nodetest.Packet{
				From: b, To: a, Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(80, 4000, p.payload(64)),
			}, "the answer to %s", a)
			p.requireDelivery()
		}
		both(true)
		s.apply(closed)
		require.Eventually(t, func() bool { return len(s.cut()) >= 2 }, 20*cutWithin, 10*time.Millisecond)
		both(false)
	})
}

// groupsOf are addresses of groups of hosts to which pods of the node belong.
func groupsOf(like netip.Addr) []netip.Addr {
	if like.Is6() {
		return []netip.Addr{netip.MustParseAddr("ff02::1")}
	}
	return []netip.Addr{netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("10.244.1.255"), netip.IPv4Unspecified()}
}

// A packet to a group has no answer. A forged one opens nothing: neither to the group, in
// whatever frame, nor from it.
func TestNoAnswerOfAGroupOpensAConnection(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.sync()
		p := newPost(s, "a", "b")
		port := uint16(5000)
		for i, a := range s.hosts["a"].Addrs {
			for _, group := range groupsOf(a) {
				for name, speaker := range map[string]netip.Addr{"itself": a, "b": s.hosts["b"].Addrs[i], "nobody": netip.IPv4Unspecified()} {
					if speaker.Is4() != group.Is4() {
						continue
					}
					port++
					send := func(mac net.HardwareAddr, from, to netip.Addr, source, destination uint16, about string) {
						p.send("a", "b", mac, false, nodetest.Packet{
							From: from, To: to, Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(source, destination, p.payload(64)),
						}, "%s, to %s, as %s", about, group, name)
					}
					send(broadcastMAC, speaker, group, port, 80, "the first")
					send(p.macs["b"], group, speaker, 80, port, "the answer")
					send(p.macs["b"], speaker, group, port, 80, "the second, to one")
					send(broadcastMAC, speaker, group, port, 80, "the second, to all")
					send(p.macs["b"], group, speaker, 80, port, "the second answer")
				}
			}
		}
		p.requireDelivery()
	})
}

// A packet in the name of a group, to an address that nobody has, begins no connection in
// which that address may answer to the group.
func TestNobodyAnswersToAGroup(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.sync()
		p := newPost(s, "a", "b")
		port := uint16(6000)
		for i, nobody := range []netip.Addr{netip.MustParseAddr("10.244.1.99"), netip.MustParseAddr("fd00:10:244:1::99")} {
			for _, group := range groupsOf(s.hosts["a"].Addrs[i]) {
				if group.IsUnspecified() {
					continue // no host takes it, but from itself
				}
				port++
				send := func(mac net.HardwareAddr, passes bool, from, to netip.Addr, source, destination uint16) {
					p.send("a", "b", mac, passes, nodetest.Packet{
						From: from, To: to, Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(source, destination, p.payload(64)),
					}, "from %s to %s in a frame to %s", from, to, mac)
				}
				send(p.macs["b"], true, group, nobody, 80, port) // b has no such address, and no policy is asked
				send(broadcastMAC, false, nobody, group, port, 80)
				send(p.macs["b"], false, nobody, group, port, 80)
			}
		}
		p.requireDelivery()
	})
}

// What hosts do send in frames to groups still comes to the node: broadcasts, also of a client
// of DHCP that has no address yet, and multicast. Frames to one host that a bridge
// doesn't know are flooded to its ports.
func TestWhatHostsSendToGroupsPasses(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.pod("default", "open too", nil, "10.244.1.13", "fd00:10:244:1::13")
		s.sync()
		p := newPost(s, "open", "open too")
		box := listen(t, s.node.Host)
		for _, own := range s.hosts["open"].Addrs {
			for _, to := range groupsOf(own) {
				for _, from := range []netip.Addr{own, netip.IPv4Unspecified()} {
					if to.IsUnspecified() || from.IsUnspecified() && to != netip.MustParseAddr("255.255.255.255") {
						continue
					}
					packet := nodetest.Packet{
						From: from, To: to, Protocol: unix.IPPROTO_UDP, Hops: 1, Payload: nodetest.UDP(groupPort, groupPort, []byte(to.String())),
					}
					require.NoError(t, p.senders["open"](nodetest.Ethernet(p.macs["open"], broadcastMAC, packet.EtherType(), packet.Bytes())))
					select {
					case text := <-box:
						require.Equal(t, to.String(), text)
					case <-time.After(answerWithin):
						require.Fail(t, "nothing came", "from %s to %s\n%s", from, to, s.dump())
					}
				}
			}
		}
		s.run("ip", "link", "set", s.node.Port(s.hosts["open too"]), "type", "bridge_slave", "fdb_flush")
		for i, from := range s.hosts["open"].Addrs {
			p.send("open", "open too", p.macs["open too"], true, nodetest.Packet{
				From: from, To: s.hosts["open too"].Addrs[i], Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(4000, 80, p.payload(64)),
			}, "flooded, to %s", s.hosts["open too"].Addrs[i])
		}
		p.requireDelivery()
	})
}
