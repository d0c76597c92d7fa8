package dataplane

import (
	"bytes"
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

// closed lets pods with role=db neither send nor receive anything.
const closed = `
metadata: {name: closed, namespace: default}
spec: {podSelector: {matchLabels: {role: db}}, policyTypes: [Ingress, Egress]}
`

// post sends packets between the pods of a scene and sees whether they arrive.
type post struct {
	s       *scene
	bridge  net.HardwareAddr
	macs    map[string]net.HardwareAddr
	senders map[string]func([]byte) error
	boxes   map[string]<-chan []byte
	sent    []letter
}

// letter is a packet that was sent.
type letter struct {
	to, text string
	mark     int  // where it is in the frame, unless anywhere will do: errors of the node quote it
	passes   bool // it should arrive
}

// mark is in every payload that a post sends.
const mark = "moat-post"

// anywhere is the mark of a letter that is unpacked on its way.
const anywhere = -1

// sendUnpacked is send for a packet that may arrive without its outer headers.
func (p *post) sendUnpacked(from, to string, mac net.HardwareAddr, passes bool, packet nodetest.Packet, about string) {
	p.s.t.Helper()
	p.send(from, to, mac, passes, packet, "%s", about)
	p.sent[len(p.sent)-1].mark = anywhere
}

func newPost(s *scene, names ...string) *post {
	p := &post{
		s: s, bridge: s.node.MAC(s.t, "cni0"), macs: map[string]net.HardwareAddr{},
		senders: map[string]func([]byte) error{}, boxes: map[string]<-chan []byte{},
	}
	for _, name := range names {
		host := s.hosts[name]
		p.macs[name] = host.MAC(s.t, "eth0")
		p.senders[name] = host.FrameSender(s.t)
		p.boxes[name] = host.Frames(s.t, func(frame []byte) bool { return bytes.Contains(frame, []byte(mark)) })
		s.meet(name)
	}
	return p
}

// payload returns bytes that tell the next packet from all others.
func (p *post) payload(size int) []byte {
	text := fmt.Appendf(nil, "%s-%d.", mark, len(p.sent))
	return append(text, make([]byte, max(0, size-len(text)))...)
}

// send sends a frame from one pod. It says what should become of it.
func (p *post) send(from, to string, mac net.HardwareAddr, passes bool, packet nodetest.Packet, about string, args ...any) {
	p.s.t.Helper()
	frame := nodetest.Ethernet(p.macs[from], mac, packet.EtherType(), packet.Bytes())
	p.sent = append(p.sent, letter{to: to, passes: passes, text: fmt.Sprintf(about, args...), mark: bytes.Index(frame, []byte(mark))})
	require.NoError(p.s.t, p.senders[from](frame))
}

// requireDelivery waits for what should arrive, and requires that nothing else does.
func (p *post) requireDelivery() {
	p.s.t.Helper()
	arrived := map[int]bool{}
	for name, box := range p.boxes {
		for missing := true; missing; {
			missing = false
			for i, l := range p.sent {
				missing = missing || l.to == name && l.passes && !arrived[i]
			}
			select {
			case frame := <-box:
				for i := range p.sent {
					at := bytes.Index(frame, fmt.Appendf(nil, "%s-%d.", mark, i))
					is := at >= 0 && (at == p.sent[i].mark || p.sent[i].mark == anywhere)
					arrived[i] = arrived[i] || is && p.sent[i].to == name
				}
				missing = true
			case <-time.After(patience(missing)):
				missing = false
			}
		}
	}
	for i, l := range p.sent {
		require.Equal(p.s.t, l.passes, arrived[i], "%s\n%s", l.text, p.s.dump())
	}
	p.sent = nil
}

// closedScene has two pods that nothing is allowed to, and an open one.
func closedScene(t *testing.T, backend iptables.Backend) *scene {
	t.Helper()
	s := newScene(t, backend)
	s.namespace("default", nil)
	s.pod("default", "a", map[string]string{"role": "db"}, "10.244.1.10", "fd00:10:244:1::10")
	s.pod("default", "b", map[string]string{"role": "db"}, "10.244.1.11", "fd00:10:244:1::11")
	s.pod("default", "open", nil, "10.244.1.12", "fd00:10:244:1::12")
	s.apply(closed)
	return s
}

// meet makes the node and the neighbours know a host's addresses, as they do where it is in
// use.
func (s *scene) meet(name string) {
	for _, addr := range s.hosts[name].Addrs {
		s.node.TCP(addr, 9, answerWithin) // refused, once its neighbour is found
	}
}

// message is an ICMPv6 message of a type with a payload.
func message6(icmpType uint8, data []byte) []byte {
	return append([]byte{icmpType, 0, 0, 0, 0, 0, 0, 0}, data...)
}

// Messages of neighbour discovery are no tunnel: neither past policies, nor past the guard of a
// pod that starts. On the bridge they pass while they are small.
func TestDiscoveryIsNoTunnel(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.guardNode()
		s.host("new", s.node.AddPod(t, "10.244.1.66", "fd00:10:244:1::66"))
		s.sync()
		p := newPost(s, "a", "b", "new")
		for _, way := range [][2]string{{"a", "b"}, {"b", "a"}, {"a", "new"}, {"new", "a"}} {
			from, to := way[0], way[1]
			for icmpType := uint8(133); icmpType <= 137; icmpType++ {
				for _, size := range []int{64, 1200} {
					for name, mac := range map[string]net.HardwareAddr{"routed": p.bridge, "bridged": p.macs[to]} {
						passes := name == "bridged" && size < 128 && (icmpType == 135 || icmpType == 136)
						p.send(from, to, mac, passes, nodetest.Packet{
							From: s.hosts[from].Addrs[1], To: s.hosts[to].Addrs[1], Protocol: unix.IPPROTO_ICMPV6, Hops: 255,
							Payload: message6(icmpType, p.payload(size)),
						}, "%s, type %d, %d bytes, from %s to %s", name, icmpType, size, from, to)
					}
				}
			}
		}
		p.requireDelivery()
		// It still does its work.
		s.remove("closed")
		s.sync()
		require.True(t, s.hosts["a"].TCP(s.hosts["b"].Addrs[1], 80, answerWithin))
	})
}

// service leads a Service's address and a port of the node to a pod, as kube-proxy and the
// portmap plugin do. What a pod sends to itself gets the node's address, or else what all
// send.
func (s *scene) service(command, name string, addr, service netip.Addr, masqueradeAll bool) {
	s.t.Helper()
	nat := func(args ...string) { s.run(command, append([]string{"-w", "-t", "nat"}, args...)...) }
	target := netip.AddrPortFrom(addr, 80).String()
	for _, protocol := range []string{"tcp", "udp"} {
		nat("-A", "PREROUTING", "-d", service.String(), "-p", protocol, "--dport", "80", "-j", "DNAT", "--to-destination", target)
	}
	nat("-A", "PREROUTING", "-m", "addrtype", "--dst-type", "LOCAL", "-p", "tcp", "--dport", "8080", "-j", "DNAT", "--to-destination", target)
	if masqueradeAll {
		nat("-A", "POSTROUTING", "-d", addr.String(), "-j", "MASQUERADE")
	} else {
		nat("-A", "POSTROUTING", "-s", addr.String(), "-d", addr.String(), "-j", "MASQUERADE")
	}
}

// A closed pod may speak to itself through its Service and its port of the node, and nobody
// else may in its name: no pod of its node, nothing behind another link, not even through its
// Service.
func TestNobodySpeaksToAPodAsItself(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		for _, masqueradeAll := range []bool{false, true} {
			t.Run(fmt.Sprintf("masqueradeAll=%v", masqueradeAll), func(t *testing.T) {
				s := closedScene(t, backend)
				s.pod("default", "away", nil, "10.244.2.10", "fd00:10:244:2::10")
				s.sync()
				services := []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::10")}
				b := s.hosts["b"]
				for i, command := range []string{string(backend), strings.Replace(string(backend), "iptables", "ip6tables", 1)} {
					s.service(command, "b", b.Addrs[i], services[i], masqueradeAll)
					require.True(t, b.TCP(services[i], 80, answerWithin), "to itself, by its Service\n%s", s.dump())
					require.True(t, b.TCP(s.node.Addrs[i], 8080, answerWithin), "to itself, by a port of the node\n%s", s.dump())
					require.False(t, s.hosts["a"].TCP(services[i], 80, silentAfter))
				}
				p := newPost(s, "a", "b", "away")
				forge := func(from string, mac net.HardwareAddr, to netip.Addr, about string) {
					p.send(from, "b", mac, false, nodetest.Packet{
						From: b.Addr(to), To: to, Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(4000, 80, p.payload(64)),
					}, "%s", about)
				}
				away := s.node.MAC(t, s.node.Port(s.hosts["away"]))
				for i, addr := range b.Addrs {
					forge("a", p.macs["b"], addr, "from a pod of the bridge")
					forge("a", p.bridge, addr, "from a pod of the bridge, routed")
					forge("away", away, addr, "from another node")
					forge("away", away, services[i], "from another node, to the Service")
				}
				p.requireDelivery()
			})
		}
	})
}

// knownFlow makes a connection from one pod to another by UDP, from the given port, and
// returns the headers of its answer, as an error about that quotes them.
func (s *scene) knownFlow(from, to string, like netip.Addr, port uint16) []byte {
	s.t.Helper()
	client, server := s.hosts[from].Addr(like), s.hosts[to].Addr(like)
	require.NoError(s.t, s.hosts[from].Do(func() error {
		conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(client, port)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(server, 53)))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		if err := conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
			return err
		}
		if _, err := conn.Write([]byte("known")); err != nil {
			return err
		}
		_, err = conn.Read(make([]byte, 64))
		return err
	}))
	answer := nodetest.Packet{From: server, To: client, Protocol: unix.IPPROTO_UDP, Hops: 64, Payload: nodetest.UDP(53, port, nil)}
	return answer.Bytes()
}

// An ICMP error about a connection is no tunnel between pods that may not speak to each
// other: it is as large as the errors of a pod have to be, and it is no redirect. That a packet
// is too big passes at the size that routers send.
func TestErrorsAreBounded(t *testing.T) {
	kinds := []struct {
		v4, v6 [2]byte // type and code
		most   [2]int  // bytes that pass, by family
	}{
		{[2]byte{3, 3}, [2]byte{1, 4}, [2]int{256, 256}},
		{[2]byte{11, 0}, [2]byte{3, 0}, [2]int{256, 256}},
		{[2]byte{12, 0}, [2]byte{4, 0}, [2]int{256, 256}},
		{[2]byte{3, 4}, [2]byte{2, 0}, [2]int{576, 1280}},
		{[2]byte{5, 1}, [2]byte{137, 0}, [2]int{0, 0}},
	}
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := closedScene(t, backend)
		s.pod("default", "server", map[string]string{"role": "server"}, "10.244.1.13", "fd00:10:244:1::13")
		s.apply(`
metadata: {name: dns, namespace: default}
spec: {podSelector: {matchLabels: {role: server}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {role: client}}}], ports: [{port: 53, protocol: UDP}]}]}
`)
		s.label("open", map[string]string{"role": "client"})
		s.sync()
		p := newPost(s, "a", "server", "open")
		for family, to := range s.hosts["server"].Addrs {
			quoted := s.knownFlow("open", "server", to, 40000)
			for _, kind := range kinds {
				typeAndCode, protocol, header := kind.v4, uint8(unix.IPPROTO_ICMP), 20
				if to.Is6() {
					typeAndCode, protocol, header = kind.v6, unix.IPPROTO_ICMPV6, 40
				}
				for _, size := range []int{200, 300, 570, 1200, 1400} {
					message := append([]byte{typeAndCode[0], typeAndCode[1], 0, 0, 0, 0, 5, 0}, quoted...)
					message = append(message, p.payload(size-header-len(message))...)
					p.send("a", "server", p.macs["server"], size <= kind.most[family], nodetest.Packet{
						From: s.hosts["a"].Addr(to), To: to, Protocol: protocol, Hops: 64, Payload: message,
					}, "type and code %v of %d bytes", typeAndCode, size)
				}
			}
		}
		p.requireDelivery()
	})
}
