// Package conntrack reads the kernel's table of connections, finds those that are
// to be cut among them, and forgets those of addresses that changed hands.
//
// What is to be cut is worked out by a Scan (pure); Table is the kernel's half.
package conntrack

import (
	"encoding/binary"
	"net/netip"

	"github.com/vishvananda/netlink/nl"

	"github.com/moat-dev/moat/dataplane/nlattr"
	"github.com/moat-dev/moat/dataplane/policy"
)

// Class is all connections that no policy can tell apart: a NetworkPolicy doesn't
// speak of the client's port.
type Class struct {
	// Client opened the connections. Server is who answers, behind a Service the
	// pod: FORWARD sees both so.
	Client, Server netip.Addr

	Protocol policy.Protocol

	// Port is the server's. For ICMP it is the type and the code of the requests,
	// eight bits each, for protocols without ports 0.
	Port uint16

	// Answer is the type and the code of the answers for ICMP, else it equals Port.
	Answer uint16
}

// LinkLocal reports whether the end that sends (Egress) or receives (Ingress) has an
// IPv6 link-local address: whose it is depends on the link.
func (c *Class) LinkLocal(d policy.Direction) bool {
	addr := c.Client
	if d == policy.Ingress {
		addr = c.Server
	}
	return addr.Is6() && addr.IsLinkLocalUnicast()
}

// Flow is what the policies are asked about.
func (c *Class) Flow() policy.Flow {
	flow := policy.Flow{Source: c.Client, Destination: c.Server, Protocol: c.Protocol}
	if !isICMP(c.Protocol) {
		flow.Port = c.Port
	}
	return flow
}

// Entry is one connection of the kernel's table. It is valid while the function
// runs that gets it.
type Entry struct {
	Class

	// original is CTA_TUPLE_ORIG; id and zone are CTA_ID and CTA_ZONE, nil for none.
	original, id, zone []byte
}

func isICMP(p policy.Protocol) bool { return p == policy.ICMP || p == policy.ICMPv6 }

// udpLite is UDP-Lite (RFC 3828).
const udpLite policy.Protocol = 136

// hasPorts reports whether ipset reads ports from the protocol's packets (get_port
// in net/netfilter/ipset/ip_set_getport.c).
func hasPorts(p policy.Protocol) bool {
	return p == policy.TCP || p == policy.UDP || p == policy.SCTP || p == udpLite
}

// Attributes that the netlink library has no name for.
const (
	ctaTupleIP     = nl.CTA_TUPLE_IP
	ctaTupleProto  = nl.CTA_TUPLE_PROTO
	ctaICMPType    = 5
	ctaICMPCode    = 6
	ctaICMPv6Type  = 8
	ctaICMPv6Code  = 9
	ctaProtoNumber = nl.CTA_PROTO_NUM
)

// tuple is one direction of a connection.
type tuple struct {
	source         netip.Addr
	protocol       policy.Protocol
	sourcePort     uint16
	icmpType, code uint8
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
		}
	}
	e.Class = Class{Client: original.source, Server: reply.source, Protocol: original.protocol}
	switch {
	case isICMP(original.protocol):
		e.Port = uint16(original.icmpType)<<8 | uint16(original.code)
		e.Answer = uint16(reply.icmpType)<<8 | uint16(reply.code)
	case hasPorts(original.protocol):
		e.Port, e.Answer = reply.sourcePort, reply.sourcePort
	}
	return e.Client.IsValid() && e.Server.IsValid()
}

func parseTuple(content []byte) tuple {
	var t tuple
	for kind, content := range nlattr.All(content) {
		switch kind {
		case ctaTupleIP:
			for kind, ip := range nlattr.All(content) {
				if kind == nl.CTA_IP_V4_SRC || kind == nl.CTA_IP_V6_SRC {
					t.source, _ = netip.AddrFromSlice(ip)
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
	case len(value) != 1:
	case kind == ctaProtoNumber:
		t.protocol = policy.Protocol(value[0])
	case kind == ctaICMPType || kind == ctaICMPv6Type:
		t.icmpType = value[0]
	case kind == ctaICMPCode || kind == ctaICMPv6Code:
		t.code = value[0]
	}
}
