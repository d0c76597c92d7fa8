package conntrack

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
	"github.com/moat-dev/moat/dataplane/policy"
)

var (
	pod    = netip.MustParseAddr("10.244.1.10")
	remote = netip.MustParseAddr("10.244.2.10")
	other  = netip.MustParseAddr("10.244.3.10")
)

// message is a connection as the kernel tells of it.
func message(c Class, service netip.Addr) []byte {
	var b []byte
	direction := func(kind int, source, destination netip.Addr, from, to uint16, icmp uint16) {
		tuple := nlattr.Begin(&b, kind|unix.NLA_F_NESTED)
		ip := nlattr.Begin(&b, nl.CTA_TUPLE_IP|unix.NLA_F_NESTED)
		nlattr.Append(&b, nl.CTA_IP_V4_SRC, source.AsSlice()...)
		nlattr.Append(&b, nl.CTA_IP_V4_DST, destination.AsSlice()...)
		nlattr.End(b, ip)
		proto := nlattr.Begin(&b, nl.CTA_TUPLE_PROTO|unix.NLA_F_NESTED)
		nlattr.Append(&b, nl.CTA_PROTO_NUM, byte(c.Protocol))
		if c.Protocol == policy.ICMP {
			nlattr.Append(&b, ctaICMPType, byte(icmp>>8))
			nlattr.Append(&b, ctaICMPCode, byte(icmp))
		} else {
			nlattr.Append(&b, nl.CTA_PROTO_SRC_PORT, byte(from>>8), byte(from))
			nlattr.Append(&b, nl.CTA_PROTO_DST_PORT, byte(to>>8), byte(to))
		}
		nlattr.End(b, proto)
		nlattr.End(b, tuple)
	}
	direction(nl.CTA_TUPLE_ORIG, c.Client, service, 40000, 80, c.Port)
	direction(nl.CTA_TUPLE_REPLY, c.Server, c.Client, c.Port, 40000, c.Answer)
	nlattr.Append(&b, nl.CTA_ID|unix.NLA_F_NET_BYTEORDER, 1, 2, 3, 4)
	return b
}

// What counts of a connection is the pod behind the Service, and its port.
func TestParse(t *testing.T) {
	service := netip.MustParseAddr("10.96.0.10")
	for _, class := range []Class{
		{Client: remote, Server: pod, Protocol: policy.TCP, Port: 8080, Answer: 8080},
		{Client: pod, Server: remote, Protocol: policy.ICMP, Port: 8 << 8, Answer: 0},
		{Client: pod, Server: remote, Protocol: 47},
	} {
		var entry Entry
		require.True(t, entry.parse(message(class, service)))
		require.Equal(t, class, entry.Class)
	}
	flow := (&Class{Client: pod, Server: remote, Protocol: policy.ICMP, Port: 8 << 8}).Flow()
	require.Zero(t, flow.Port, "policies know no types of ICMP")
}

func FuzzParse(f *testing.F) {
	f.Add(message(Class{Client: remote, Server: pod, Protocol: policy.TCP, Port: 80}, pod))
	f.Fuzz(func(t *testing.T, b []byte) {
		var entry Entry
		if entry.parse(b) {
			require.True(t, entry.Client.IsValid() && entry.Server.IsValid())
		}
	})
}

func entry(client, server netip.Addr, protocol policy.Protocol, port uint16) *Entry {
	return &Entry{Class: Class{Client: client, Server: server, Protocol: protocol, Port: port, Answer: port}, id: []byte{byte(port)}}
}

// Link-local ends matter where a link is closed for what they do.
func TestScanKeepsWhatLinksHaveASayIn(t *testing.T) {
	here, there := netip.MustParseAddr("fe80::a"), netip.MustParseAddr("fe80::b")
	known, group := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("ff02::fb")
	for _, row := range []struct {
		client, server netip.Addr
		sent, received bool
	}{
		{here, there, true, true},
		{here, known, true, false},
		{known, here, false, true},
		{known, netip.MustParseAddr("2001:db8::2"), false, false},
		{netip.MustParseAddr("169.254.0.1"), netip.MustParseAddr("169.254.0.2"), false, false}, // links don't close it
		{here, group, false, false},
		{here, here, false, false},
	} {
		for _, links := range [][policy.Directions]bool{{}, {policy.Egress: true}, {policy.Ingress: true}, {true, true}} {
			s := Scan{Links: links}
			s.Add(entry(row.client, row.server, policy.UDP, 53))
			kept := row.sent && links[policy.Egress] || row.received && links[policy.Ingress]
			require.Equal(t, kept, len(s.Classes) == 1, "%+v %v", row, links)
		}
	}
}

func TestScanKeepsWhatPoliciesHaveASayIn(t *testing.T) {
	s := Scan{
		Isolated: [policy.Directions]Addresses{policy.Ingress: {pod: {}}, policy.Egress: {remote: {}}},
		Released: Addresses{other: {}},
	}
	for range 3 {
		s.Add(entry(netip.MustParseAddr("172.17.0.1"), pod, policy.TCP, 80)) // to an isolated pod
	}
	s.Add(entry(pod, netip.MustParseAddr("172.17.0.1"), policy.TCP, 80)) // from a pod that may send everything
	s.Add(entry(remote, netip.MustParseAddr("172.17.0.1"), policy.UDP, 53))
	s.Add(entry(pod, pod, policy.TCP, 80)) // to itself
	s.Add(entry(other, pod, policy.TCP, 1))
	s.Add(entry(pod, other, policy.TCP, 2))
	s.Add(entry(remote, pod, 0, 3))

	require.Equal(t, 9, s.Entries)
	require.Len(t, s.Classes, 2)
	require.Equal(t, 3, s.Classes[entry(netip.MustParseAddr("172.17.0.1"), pod, policy.TCP, 80).Class])
	require.Len(t, s.Forget, 3, "both ends of the released address, and what no set can hold")
	require.Equal(t, []byte{1}, s.Forget[0].id)
}
