package conntrack

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Opener says which end opened the connections of a class: the one that sent the
// first packet that the kernel saw, or the other one.
//
// The kernel tracks connections only while a rule needs it. After all tables were flushed, no rule
// does. A connection that is opened then has no entry until rules of some program are back. The
// next packet of either end makes the entry: the kernel picks the connection up in the middle
// (tcp_new in net/netfilter/nf_conntrack_proto_tcp.c).
type Opener uint8

// The openers.
const (
	First  Opener = iota // the kernel saw the connection from its first packet on
	Second               // the first packet that the kernel saw was an answer
	Either               // it is unknown
)

// Ports are the ports that clients use: from a first one up to 65535. The node's own range ends
// below, but clients of other systems use ports beyond its end.
type Ports struct{ First uint16 }

// AssuredAfter is the least age of an entry of UDP that the kernel calls assured
// (nf_conntrack_udp_packet in net/netfilter/nf_conntrack_proto_udp.c).
const AssuredAfter = 2 * time.Second

// portRange is the range of ports that the kernel gives to clients, for both families
// (ip_local_port_range in the kernel's ip-sysctl documentation).
const portRange = "/proc/sys/net/ipv4/ip_local_port_range"

// ClientPorts returns the ports that clients use in the network namespace of the
// calling thread.
func ClientPorts() (Ports, error) {
	content, err := os.ReadFile(portRange)
	if err != nil {
		return Ports{}, fmt.Errorf("reading the range of client ports: %w", err)
	}
	return parsePorts(string(content))
}

func parsePorts(content string) (Ports, error) {
	first, _, _ := strings.Cut(strings.TrimSpace(content), "\t")
	number, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return Ports{}, fmt.Errorf("reading the range of client ports %q: %w", content, err)
	}
	return Ports{uint16(number)}, nil
}

// Opener says which end opened a picked-up connection. The ports are those of the first packet
// that the kernel saw. The end whose port no client uses is the server.
func (p Ports) Opener(from, to uint16) Opener {
	switch fromClient, toClient := from >= p.First, to >= p.First; {
	case fromClient && !toClient:
		return First
	case !fromClient && toClient:
		return Second
	}
	return Either
}

// Readings lists the classes that policies have to judge, each with the end that opened its
// connections as the client. There are two where it is unknown which end opened them.
func (c *Class) Readings() []Class {
	seen := *c
	seen.Opener, seen.From = First, 0
	answered := seen
	answered.Client, answered.Server, answered.Port, answered.Answer = c.Server, c.Client, c.From, c.From
	switch c.Opener {
	case Second:
		return []Class{answered}
	case Either:
		return []Class{seen, answered}
	case First:
	}
	return []Class{seen}
}

// read sets Opener and From of an entry that the kernel may have picked up.
func (s *Scan) read(e *Entry) {
	opener := s.ClientPorts.Opener(e.from, e.Port)
	if e.translated || opener == First {
		// A server's answer is never sent to a Service: only clients know its address.
		return
	}
	picked := e.Class
	picked.Opener, picked.From = opener, e.from
	switch {
	case e.Protocol == policy.TCP && e.liberal:
		e.Class = picked
	case e.Protocol == policy.UDP && opener == Second:
		_, cut := s.Cut[picked]
		_, answered := s.Answered[picked]
		if cut || answered || s.Resumed && (s.Late || !e.assured) {
			e.Class = picked
			if s.Answers == nil {
				s.Answers = map[Class]struct{}{}
			}
			s.Answers[picked] = struct{}{}
		}
	}
}
