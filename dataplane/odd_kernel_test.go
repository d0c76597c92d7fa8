package dataplane

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// oddFor is the variable that has the odd packets go on for longer, such as "1h".
const oddFor = "MOAT_ODD_PACKETS"

// Sizes of a run of odd packets.
const (
	oddSeed   = 1    // of the first scene; each has the next one
	oddBatch  = 250  // packets between two looks at what came
	oddFrames = 1500 // packets of a scene
)

// oddEnds are two closed pods, one that receives from a client alone, and the client.
func oddEnds(t *testing.T, backend iptables.Backend) *scene {
	t.Helper()
	s := closedScene(t, backend)
	s.guardNode()
	s.pod("default", "server", map[string]string{"role": "server"}, "10.244.1.13", "fd00:10:244:1::13")
	s.apply(`
metadata: {name: dns, namespace: default}
spec: {podSelector: {matchLabels: {role: server}}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {role: client}}}], ports: [{port: 53, protocol: UDP}]}]}
`)
	s.label("open", map[string]string{"role": "client"})
	s.sync()
	return s
}

// oddSender returns what sends from pod a.
func (s *scene) oddSender(p *post, seed uint64) *oddSender {
	o := newOddSender(seed)
	o.own = p.macs["a"]
	o.macs = []net.HardwareAddr{
		p.macs["b"], p.macs["b"], p.macs["server"], p.bridge, p.bridge,
	}
	o.groups = []net.HardwareAddr{
		{255, 255, 255, 255, 255, 255}, {1, 0, 0x5e, 0, 0, 1}, {0x33, 0x33, 0, 0, 0, 1}, {0x33, 0x33, 0xff, 0, 0, 0x11}, {1, 0x80, 0xc2, 0, 0, 0}, {1, 0x80, 0xc2, 0, 0, 0xe},
	}
	for _, name := range []string{"a", "b", "b", "server", "open"} {
		o.addrs = append(o.addrs, s.hosts[name].Addrs...)
		o.addrs = append(o.addrs, linkLocal(s.t, s.hosts[name], "eth0"))
	}
	o.addrs = append(o.addrs, s.node.Addrs...)
	for _, text := range []string{"0.0.0.0", "127.0.0.1", "10.244.1.255", "255.255.255.255", "224.0.0.1", "10.244.1.99", "192.0.2.1", "::", "::1", "ff02::1", "ff02::2", "ff02::16", "ff02::1:ff00:11", "fd00:10:244:1::99", "2001:db8::1"} {
		o.addrs = append(o.addrs, netip.MustParseAddr(text))
	}
	o.known = map[bool][]byte{}
	for _, addr := range s.hosts["server"].Addrs {
		o.known[addr.Is4()] = s.knownFlow("open", "server", addr, 40000)
	}
	return o
}

// oddJudge says of a frame that came to a closed pod why it may have.
type oddJudge struct {
	node, client []netip.Addr
	receivers    map[string][]netip.Addr // what each pod's kernel takes for its own
}

func newOddJudge(s *scene) *oddJudge {
	j := &oddJudge{
		node:   append(slices.Clone(s.node.Addrs), linkLocal(s.t, s.node.Host, "cni0")),
		client: s.hosts["open"].Addrs, receivers: map[string][]netip.Addr{},
	}
	for _, name := range []string{"b", "server"} {
		host := s.hosts[name]
		j.receivers[name] = append(slices.Clone(host.Addrs), linkLocal(s.t, host, "eth0"), netip.MustParseAddr("10.244.1.255"), netip.MustParseAddr("255.255.255.255"))
	}
	return j
}

// oddPacket is what a frame that arrived carries.
type oddPacket struct {
	from, to netip.Addr
	protocol uint8
	rest     []byte // behind the headers
	hops     uint8
	length   int // as the packet says
}

// readOdd reads the IP packet of a frame; false where it has none.
func readOdd(frame []byte) (p oddPacket, isIP bool) {
	packet := frame[14:]
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == nodetest.EtherIPv4 && len(packet) >= 20 && packet[0]>>4 == 4 && len(packet) >= int(packet[0]&15)*4:
		p = oddPacket{protocol: packet[9], rest: packet[int(packet[0]&15)*4:], hops: packet[8], length: int(binary.BigEndian.Uint16(packet[2:]))}
		p.from, p.to = netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))
	case kind == nodetest.EtherIPv6 && len(packet) >= 40 && packet[0]>>4 == 6:
		p = oddPacket{hops: packet[7], length: 40 + int(binary.BigEndian.Uint16(packet[4:]))}
		p.from, p.to = netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))
		p.protocol, p.rest = upper6(packet)
	default:
		return p, false
	}
	return p, true
}

// documented returns why a frame may have come to a pod, as docs/security.md says; empty
// for a leak. It was sent as another frame, or the same; nil: nobody can tell, since a
// quotation ends within the mark.
func (j *oddJudge) documented(name string, frame, sent []byte) string {
	p, isIP := readOdd(frame)
	was, wasIP := oddPacket{}, true
	if sent != nil {
		was, wasIP = readOdd(sent) // the kernel takes off tags before it shows a frame
	}
	switch {
	case !isIP || !wasIP:
		return "frames that aren't IP, or are tagged"
	case !p.to.IsMulticast() && !slices.Contains(j.receivers[name], p.to):
		return "addresses that the receiver doesn't have"
	case p.isDiscovery():
		return "discovery"
	case slices.Contains(j.node, p.from) && was.from != p.from:
		return "what the node says to who was forged"
	case name != "server":
		return ""
	case p.isError():
		return "errors about a connection"
	case slices.Contains(j.client, p.from):
		return "the forged address of an allowed client, and its answers"
	}
	return ""
}

// isDiscovery reports whether it is neighbour or listener discovery of the size that passes.
func (p *oddPacket) isDiscovery() bool {
	if p.protocol != unix.IPPROTO_ICMPV6 || len(p.rest) == 0 {
		return false
	}
	neighbour := (p.rest[0] == 135 || p.rest[0] == 136) && p.hops == 255 && p.length <= 128
	listener := slices.Contains([]byte{130, 131, 132, 143}, p.rest[0]) && p.to.IsMulticast() && p.length <= 256
	return neighbour || listener
}

// isError reports whether it is an ICMP error of the size that passes.
func (p *oddPacket) isError() bool {
	if len(p.rest) == 0 {
		return false
	}
	types, most := []byte{3, 11, 12}, 576
	if p.protocol == unix.IPPROTO_ICMPV6 {
		types, most = []byte{1, 2, 3, 4}, 1280
	}
	return (p.protocol == unix.IPPROTO_ICMP || p.protocol == unix.IPPROTO_ICMPV6) && slices.Contains(types, p.rest[0]) && p.length <= most
}

// upper6 passes over the extension headers.
func upper6(packet []byte) (protocol uint8, rest []byte) {
	protocol, rest = packet[6], packet[40:]
	for len(rest) >= 8 {
		switch protocol {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_DSTOPTS, unix.IPPROTO_ROUTING:
			size := min(len(rest), 8*(1+int(rest[1])))
			protocol, rest = rest[0], rest[size:]
		case unix.IPPROTO_FRAGMENT:
			protocol, rest = rest[0], rest[8:]
		default:
			return protocol, rest
		}
	}
	return protocol, rest
}

// Whatever a closed pod sends by a raw socket, to pods that may receive nothing or from others
// alone: nothing arrives but what docs/security.md lists. MOAT_ODD_PACKETS=1h goes on for an
// hour.
func TestOddPacketsDoNotArrive(t *testing.T) {
	until := time.Now()
	if text := os.Getenv(oddFor); text != "" {
		duration, err := time.ParseDuration(text)
		require.NoError(t, err)
		until = until.Add(duration)
	}
	backends(t, func(t *testing.T, backend iptables.Backend) {
		arrived, sent := map[string]int{}, 0
		for seed := uint64(oddSeed); seed == oddSeed || time.Now().Before(until); seed++ {
			t.Run(fmt.Sprint(seed), func(t *testing.T) { sent += sendOddPackets(t, backend, seed, arrived) })
			if t.Failed() {
				return
			}
		}
		t.Logf("%d packets; arrived: %v", sent, arrived)
	})
}

// sendOddPackets sends those of one seed and counts what arrived, by why it may.
func sendOddPackets(t *testing.T, backend iptables.Backend, seed uint64, arrived map[string]int) int {
	s := oddEnds(t, backend)
	p := newPost(s, "a", "b", "server")
	o := s.oddSender(p, seed)
	judge := newOddJudge(s)
	var frames [][]byte
	for len(frames) < oddFrames {
		frame := o.frame(fmt.Appendf(nil, "%s-%d.", mark, len(frames)))
		frames = append(frames, frame)
		if err := p.senders["a"](frame); err != nil {
			continue // longer than the link takes
		}
		if len(frames)%oddBatch != 0 {
			continue
		}
		for _, name := range []string{"b", "server"} {
			for frame := range p.arrivals(name) {
				was := sentAs(frames, frame)
				why := judge.documented(name, frame, was)
				require.NotEmpty(t, why, "seed %d: to %s came\n%x\nwhich was sent as\n%x\n%s", seed, name, frame, was, s.dump())
				arrived[why]++
			}
		}
	}
	return len(frames)
}

// arrivals yields what came to a pod, until nothing comes for a while.
func (p *post) arrivals(name string) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for {
			select {
			case frame := <-p.boxes[name]:
				if !yield(frame) {
					return
				}
			case <-time.After(silentAfter / 3):
				return
			}
		}
	}
}

// sentAs returns the frame that was sent of one that arrived.
func sentAs(frames [][]byte, arrived []byte) []byte {
	for i, frame := range frames {
		if bytes.Contains(arrived, fmt.Appendf(nil, "%s-%d.", mark, i)) {
			return frame
		}
	}
	return nil
}
