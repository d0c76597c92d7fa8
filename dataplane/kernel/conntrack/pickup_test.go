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

func TestParsePorts(t *testing.T) {
	ports, err := parsePorts("32768\t60999\n")
	require.NoError(t, err)
	require.Equal(t, Ports{32768}, ports)
	for _, content := range []string{"", "70000\t80000\n", "some\tports\n"} {
		_, err := parsePorts(content)
		require.ErrorContains(t, err, "reading the range of client ports")
	}
}

// The end that has a port which no client uses is the server.
func TestOpener(t *testing.T) {
	ports := Ports{32768}
	for _, row := range []struct {
		from, to uint16
		want     Opener
	}{
		{40000, 80, First},
		{80, 40000, Second},
		{32768, 32767, First},
		{80, 61000, Second}, // a client of another system
		{80, 8080, Either},
		{50051, 40000, Either},
	} {
		require.Equal(t, row.want, ports.Opener(row.from, row.to), "%d -> %d", row.from, row.to)
	}
}

func TestReadings(t *testing.T) {
	plain := Class{Client: pod, Server: remote, Protocol: policy.TCP, Port: 40000, Answer: 40000}
	answered := Class{Client: remote, Server: pod, Protocol: policy.TCP, Port: 80, Answer: 80}
	for opener, want := range map[Opener][]Class{First: {plain}, Second: {answered}, Either: {plain, answered}} {
		class := plain
		if class.Opener = opener; opener != First {
			class.From = 80
		}
		require.Equal(t, want, class.Readings())
	}
}

// picked is an entry between a pod's port and another's, the first packet of which
// came from the pod.
func picked(protocol policy.Protocol, from, to uint16) *Entry {
	return &Entry{
		Class:   Class{Client: pod, Server: remote, Protocol: protocol, Port: to, Answer: to},
		from:    from,
		liberal: protocol == policy.TCP,
	}
}

// Which end opened the connection of an entry: the ports say so where the kernel may have picked
// the connection up.
func TestScanReadsPickedUpEntries(t *testing.T) {
	cut := picked(policy.UDP, 53, 40000).Class
	cut.Opener, cut.From = Second, 53
	for name, row := range map[string]struct {
		entry   *Entry
		change  func(*Entry)
		resumed bool
		late    bool
		cut     bool
		known   bool // of the scan before
		want    Opener
	}{
		"TCP from a server":             {entry: picked(policy.TCP, 80, 40000), want: Second},
		"TCP from a client":             {entry: picked(policy.TCP, 40000, 80), want: First},
		"TCP between two":               {entry: picked(policy.TCP, 8080, 80), want: Either},
		"TCP, seen from the first on":   {entry: picked(policy.TCP, 80, 40000), change: func(e *Entry) { e.liberal = false }, want: First},
		"TCP to a Service":              {entry: picked(policy.TCP, 80, 40000), change: func(e *Entry) { e.translated = true }, want: First},
		"UDP from a server":             {entry: picked(policy.UDP, 53, 40000), resumed: true, want: Second},
		"UDP, older":                    {entry: picked(policy.UDP, 53, 40000), change: func(e *Entry) { e.assured = true }, resumed: true, want: First},
		"UDP, a late scan":              {entry: picked(policy.UDP, 53, 40000), change: func(e *Entry) { e.assured = true }, resumed: true, late: true, want: Second},
		"UDP, late and no gap":          {entry: picked(policy.UDP, 53, 40000), change: func(e *Entry) { e.assured = true }, late: true, want: First},
		"UDP, no gap":                   {entry: picked(policy.UDP, 53, 40000), want: First},
		"UDP that is cut":               {entry: picked(policy.UDP, 53, 40000), change: func(e *Entry) { e.assured = true }, cut: true, want: Second},
		"UDP that was answered before":  {entry: picked(policy.UDP, 53, 40000), change: func(e *Entry) { e.assured = true }, known: true, want: Second},
		"UDP between two":               {entry: picked(policy.UDP, 5060, 5060), resumed: true, want: First},
		"a protocol that is no stream":  {entry: picked(policy.SCTP, 80, 40000), resumed: true, want: First},
		"UDP to a Service from low":     {entry: picked(policy.UDP, 53, 40000), change: func(e *Entry) { e.translated = true }, resumed: true, want: First},
		"UDP from a client, new":        {entry: picked(policy.UDP, 40000, 53), resumed: true, want: First},
		"TCP, both ports from the same": {entry: picked(policy.TCP, 40000, 40001), want: Either},
	} {
		if row.change != nil {
			row.change(row.entry)
		}
		s := Scan{
			ClientPorts: Ports{32768}, Resumed: row.resumed, Late: row.late,
			Isolated: [policy.Directions]Addresses{policy.Ingress: {pod: {}}},
		}
		if row.cut {
			s.Cut = map[Class]struct{}{cut: {}}
		}
		if row.known {
			s.Answered = map[Class]struct{}{cut: {}}
		}
		s.Add(row.entry)
		if row.want == First {
			require.Empty(t, s.Classes, "%s: the pod may send", name)
			continue
		}
		require.Len(t, s.Classes, 1, name)
		for class := range s.Classes {
			require.Equal(t, row.want, class.Opener, name)
			_, answers := s.Answers[class]
			require.Equal(t, class.Protocol == policy.UDP && class.Opener == Second, answers, name)
			require.Equal(t, row.entry.from, class.From, name)
		}
	}
}

// What the kernel says of an entry besides its ends.
func TestParseSaysHowAnEntryWasMade(t *testing.T) {
	class := Class{Client: pod, Server: remote, Protocol: policy.TCP, Port: 80, Answer: 80}
	parsed := func(service netip.Addr, status uint32, flags ...byte) *Entry {
		b := message(class, service)
		nlattr.Append(&b, nl.CTA_STATUS|unix.NLA_F_NET_BYTEORDER, byte(status>>24), byte(status>>16), byte(status>>8), byte(status))
		info := nlattr.Begin(&b, nl.CTA_PROTOINFO|unix.NLA_F_NESTED)
		tcp := nlattr.Begin(&b, nl.CTA_PROTOINFO_TCP|unix.NLA_F_NESTED)
		for i, value := range flags {
			nlattr.Append(&b, nl.CTA_PROTOINFO_TCP_FLAGS_ORIGINAL+i, value, 0)
		}
		nlattr.End(b, tcp)
		nlattr.End(b, info)
		e := &Entry{}
		require.True(t, e.parse(b))
		return e
	}
	const scale, sack, liberal = 1, 2, 8
	e := parsed(remote, 0, liberal|sack, liberal|scale)
	require.True(t, e.liberal)
	require.False(t, e.assured)
	require.False(t, e.translated)
	require.Equal(t, uint16(40000), e.from)
	require.False(t, parsed(remote, 0, liberal, sack).liberal, "one end alone")
	require.False(t, parsed(remote, 0).liberal)
	require.True(t, parsed(remote, 1<<1|1<<2).assured)
	require.False(t, parsed(remote, 1<<1|1<<3).assured)
	require.True(t, parsed(other, 0).translated)
}
