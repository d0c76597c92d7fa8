package conntrack

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"

	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
	"github.com/moat-dev/moat/dataplane/policy"
)

// Class is all connections that no policy can tell apart: a NetworkPolicy can't name the client's
// port.
type Class struct {
	// Client sent the first packets that the kernel saw. Server answers. Behind a Service it is
	// the pod, as FORWARD sees it.
	Client, Server netip.Addr

	Protocol policy.Protocol

	// Port is the server's. For ICMP it is the type and the code of the requests,
	// eight bits each. For protocols without ports it is 0.
	Port uint16

	// Answer is the type and the code of the answers for ICMP. Otherwise it equals Port.
	Answer uint16

	// Opener says which end opened the connections. It is First, except for connections that
	// the kernel picked up. For these From is the port of Client, otherwise 0.
	Opener Opener
	From   uint16
}

// LinkLocal reports whether the end that sends (Egress) or receives (Ingress) has an
// IPv6 link-local address. The owner of such an address depends on the link.
func (c *Class) LinkLocal(d policy.Direction) bool {
	addr := c.Client
	if d == policy.Ingress {
		addr = c.Server
	}
	return addr.Is6() && addr.IsLinkLocalUnicast()
}

// Flow is the flow that policies judge.
func (c *Class) Flow() policy.Flow {
	flow := policy.Flow{Source: c.Client, Destination: c.Server, Protocol: c.Protocol}
	if !isICMP(c.Protocol) {
		flow.Port = c.Port
	}
	return flow
}

// Entry is one connection of the kernel's table. It is valid until the function that gets it
// returns.
type Entry struct {
	Class

	// original is CTA_TUPLE_ORIG; id and zone are CTA_ID and CTA_ZONE, nil for none.
	original, id, zone []byte

	// from is the port of Client.
	from uint16

	// translated says that Client sent to an address or port that isn't the server's.
	translated bool

	// liberal says that the kernel knows the window of neither end. That is the case for TCP
	// connections that it picked up, and for those of a flowtable.
	liberal bool

	// assured says that both ends sent packets, and went on two seconds after the entry was
	// made (nf_conntrack_udp_packet in net/netfilter/nf_conntrack_proto_udp.c; kernels
	// before 5.16 don't wait).
	assured bool
}

func isICMP(p policy.Protocol) bool { return p == policy.ICMP || p == policy.ICMPv6 }

// udpLite is UDP-Lite (RFC 3828).
const udpLite policy.Protocol = 136

// hasPorts reports whether ipset reads ports from the protocol's packets (get_port
// in net/netfilter/ipset/ip_set_getport.c).
func hasPorts(p policy.Protocol) bool {
	return p == policy.TCP || p == policy.UDP || p == policy.SCTP || p == udpLite
}

// Attributes that have no name in the netlink library.
const (
	ctaTupleIP     = nl.CTA_TUPLE_IP
	ctaTupleProto  = nl.CTA_TUPLE_PROTO
	ctaICMPType    = 5
	ctaICMPCode    = 6
	ctaICMPv6Type  = 8
	ctaICMPv6Code  = 9
	ctaProtoNumber = nl.CTA_PROTO_NUM

	tcpLiberal    = 0x08 // IP_CT_TCP_FLAG_BE_LIBERAL
	statusAssured = 1 << 2
)

// tuple is one direction of a connection.
type tuple struct {
	source, destination netip.Addr
	protocol            policy.Protocol
	sourcePort          uint16
	destinationPort     uint16
	icmpType, code      uint8
}

// parse reads a message about a connection, without its struct nfgenmsg.
func (e *Entry) parse(message []byte) bool {
	*e = Entry{}
	var original, reply tuple
	for kind, content := range nlattr.All(message) {
		switch kind {
		case nl.CTA_TUPLE_ORIG:
			e.original, original = content, parseTuple(content)
		case nl.CTA_TUPLE_REPLY:
			reply = parseTuple(content)
		case nl.CTA_ID:
			e.id = content
		case nl.CTA_ZONE:
			e.zone = content
		case nl.CTA_STATUS:
			e.assured = len(content) == 4 && binary.BigEndian.Uint32(content)&statusAssured != 0
		case nl.CTA_PROTOINFO:
			e.liberal = isLiberal(content)
		}
	}
	e.Class = Class{Client: original.source, Server: reply.source, Protocol: original.protocol}
	switch {
	case isICMP(original.protocol):
		e.Port = uint16(original.icmpType)<<8 | uint16(original.code)
		e.Answer = uint16(reply.icmpType)<<8 | uint16(reply.code)
	case hasPorts(original.protocol):
		e.Port, e.Answer = reply.sourcePort, reply.sourcePort
		e.from = original.sourcePort
		e.translated = original.destination != reply.source || original.destinationPort != reply.sourcePort
	}
	return e.Client.IsValid() && e.Server.IsValid()
}

// isLiberal reads a CTA_PROTOINFO: whether both ends have the flag (struct
// nf_ct_tcp_flags: flags, mask).
func isLiberal(content []byte) bool {
	both := 0
	for kind, tcp := range nlattr.All(content) {
		if kind != nl.CTA_PROTOINFO_TCP {
			continue
		}
		for kind, flags := range nlattr.All(tcp) {
			isFlags := kind == nl.CTA_PROTOINFO_TCP_FLAGS_ORIGINAL || kind == nl.CTA_PROTOINFO_TCP_FLAGS_REPLY
			if isFlags && len(flags) > 0 && flags[0]&tcpLiberal != 0 {
				both++
			}
		}
	}
	return both == 2
}

func parseTuple(content []byte) tuple {
	var t tuple
	for kind, content := range nlattr.All(content) {
		switch kind {
		case ctaTupleIP:
			for kind, ip := range nlattr.All(content) {
				switch kind {
				case nl.CTA_IP_V4_SRC, nl.CTA_IP_V6_SRC:
					t.source, _ = netip.AddrFromSlice(ip)
				case nl.CTA_IP_V4_DST, nl.CTA_IP_V6_DST:
					t.destination, _ = netip.AddrFromSlice(ip)
				}
			}
		case ctaTupleProto:
			for kind, value := range nlattr.All(content) {
				t.addProtocol(kind, value)
			}
		}
	}
	return t
}

func (t *tuple) addProtocol(kind int, value []byte) {
	switch {
	case kind == nl.CTA_PROTO_SRC_PORT && len(value) == 2:
		t.sourcePort = binary.BigEndian.Uint16(value)
	case kind == nl.CTA_PROTO_DST_PORT && len(value) == 2:
		t.destinationPort = binary.BigEndian.Uint16(value)
	case len(value) != 1:
	case kind == ctaProtoNumber:
		t.protocol = policy.Protocol(value[0])
	case kind == ctaICMPType || kind == ctaICMPv6Type:
		t.icmpType = value[0]
	case kind == ctaICMPCode || kind == ctaICMPv6Code:
		t.code = value[0]
	}
}
