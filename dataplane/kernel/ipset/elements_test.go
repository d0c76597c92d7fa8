package ipset

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink/nl"

	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

func TestElementsReadAsTheyAreWritten(t *testing.T) {
	for _, c := range []Change{
		{Type: ruleset.HashIP, Member: ruleset.Address(netip.MustParseAddr("10.0.0.1"))},
		{Type: ruleset.HashIP, Member: ruleset.Address(netip.MustParseAddr("fd00::1"))},
		{Type: ruleset.HashNet, Member: ruleset.Member{Prefix: netip.MustParsePrefix("10.0.0.0/9")}},
		{Type: ruleset.HashNet, Member: ruleset.Member{Prefix: netip.MustParsePrefix("fd00::/1")}},
		{Type: ruleset.HashIPPort, Member: ruleset.Member{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Protocol: 132, Port: 65535}},
		{Type: ruleset.HashIPPortIP, Member: ruleset.Member{Prefix: netip.MustParsePrefix("10.0.0.1/32"), Protocol: 1, Port: 0x800, Server: netip.MustParseAddr("10.0.0.2")}},
		{Type: ruleset.HashIPPortIP, Member: ruleset.Member{Prefix: netip.MustParsePrefix("fd00::1/128"), Protocol: 6, Port: 80, Server: netip.MustParseAddr("fd00::2")}},
	} {
		var b []byte
		encodeElement(&b, &c)
		require.Zero(t, len(b)%4, "padded")
		for kind, content := range nlattr.All(b) {
			require.Equal(t, nl.IPSET_ATTR_DATA, kind)
			member, ok := decodeElement(content)
			require.True(t, ok)
			require.Equal(t, c.Member, member)
		}
	}
}

// However many elements there are, a message never gets longer than an attribute
// can be, and none is lost.
func TestBatchesAreBounded(t *testing.T) {
	change := Change{Type: ruleset.HashIPPort, Member: ruleset.Member{Prefix: netip.MustParsePrefix("fd00::1/128"), Protocol: 6, Port: 80}}
	var changes []Change
	for range 5000 {
		changes = append(changes, change)
	}
	for sent := 0; sent < len(changes); {
		b, n := encodeElements(changes[sent:])
		require.Less(t, len(b), 1<<16)
		written := 0
		for kind, list := range nlattr.All(b) {
			require.Equal(t, nl.IPSET_ATTR_ADT, kind)
			for range nlattr.All(list) {
				written++
			}
		}
		require.Equal(t, n, written)
		sent += n
	}
}

// The kernel takes names of up to 31 characters; the longest of Moat's is that of
// a set of peers or prefixes.
func TestASpareNameFits(t *testing.T) {
	name := "moat-4-p-0123456789abcdef"
	require.True(t, strings.HasPrefix(spareName(name), name+"-"))
	require.Less(t, len(spareName(name)), nl.IPSET_MAXNAMELEN)
}

func FuzzAddMessage(f *testing.F) {
	message := make([]byte, nl.SizeofNfgenmsg)
	nlattr.Append(&message, nl.IPSET_ATTR_SETNAME, []byte("moat-a\x00")...)
	nlattr.Append(&message, nl.IPSET_ATTR_TYPENAME, []byte("hash:ip\x00")...)
	nlattr.Append(&message, nl.IPSET_ATTR_FAMILY, 2)
	elements, _ := encodeElements([]Change{{Type: ruleset.HashIP, Member: ruleset.Address(netip.MustParseAddr("10.0.0.1"))}})
	f.Add(append(message, elements...))
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0})
	f.Fuzz(func(t *testing.T, message []byte) {
		sets := map[string]*listed{}
		addMessage(sets, "moat-", message)
		for name, set := range sets {
			require.True(t, strings.HasPrefix(name, "moat-"))
			for member := range set.Members {
				require.True(t, member.Prefix.IsValid())
			}
		}
	})
}
