package ipset

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// listed is a set of the kernel.
type listed struct {
	ruleset.Set
	capacity uint32
	elements uint32 // their number, as the kernel counts them
}

// Read returns the sets of both families.
func (k *Kernel) Read() (State, error) {
	sets, err := k.list(k.request(nl.IPSET_CMD_LIST))
	if err != nil {
		return nil, fmt.Errorf("listing ipsets: %w", ofListing(err))
	}
	state := State{}
	for name, set := range sets {
		state[name] = set.Set
	}
	return state, nil
}

// Members returns what one set holds. A set that doesn't exist is an error.
func (k *Kernel) Members(name string) (ruleset.Members, error) {
	set, err := k.readOne(name)
	if err != nil {
		return nil, err
	}
	return set.Members, nil
}

func (k *Kernel) readOne(name string) (*listed, error) {
	req := k.request(nl.IPSET_CMD_LIST)
	req.AddData(nl.NewRtAttr(nl.IPSET_ATTR_SETNAME, nl.ZeroTerminated(name)))
	sets, err := k.list(req)
	if err == nil && sets[name] == nil {
		err = unix.ENOENT
	}
	if err != nil {
		return nil, fmt.Errorf("listing ipset %s: %w", name, err)
	}
	return sets[name], nil
}

// list returns the sets of the kernel's answer that are Moat's.
func (k *Kernel) list(req *nl.NetlinkRequest) (map[string]*listed, error) {
	sets := map[string]*listed{}
	err := req.ExecuteIter(unix.NETLINK_NETFILTER, 0, func(message []byte) bool {
		addMessage(sets, k.prefix, message)
		return true
	})
	return sets, err
}

// addMessage reads one message of a listing. A large set comes in several messages. All have its
// name, and only the first has its type and family.
func addMessage(sets map[string]*listed, prefix string, message []byte) {
	if len(message) < nl.SizeofNfgenmsg {
		return
	}
	addSet(sets, prefix, message[nl.SizeofNfgenmsg:])
}

func addSet(sets map[string]*listed, prefix string, attributes []byte) {
	var set *listed
	for kind, content := range nlattr.All(attributes) {
		if kind == nl.IPSET_ATTR_SETNAME {
			name := text(content)
			if !strings.HasPrefix(name, prefix) {
				return
			}
			if set = sets[name]; set == nil {
				set = &listed{Set: ruleset.Set{Name: name, Members: ruleset.Members{}}}
				sets[name] = set
			}
		} else if set != nil { // the name comes first
			set.add(kind, content)
		}
	}
}

func (s *listed) add(kind int, content []byte) {
	switch kind {
	case nl.IPSET_ATTR_TYPENAME:
		s.Type = ruleset.SetType(text(content))
	case nl.IPSET_ATTR_FAMILY:
		s.Family = ruleset.IPv4
		if len(content) == 1 && content[0] == unix.AF_INET6 {
			s.Family = ruleset.IPv6
		}
	case nl.IPSET_ATTR_DATA:
		for kind, content := range nlattr.All(content) {
			if len(content) != 4 {
				continue
			}
			switch kind {
			case nl.IPSET_ATTR_MAXELEM:
				s.capacity = binary.BigEndian.Uint32(content)
			case nl.IPSET_ATTR_ELEMENTS:
				s.elements = binary.BigEndian.Uint32(content)
			}
		}
	case nl.IPSET_ATTR_ADT:
		for _, content := range nlattr.All(content) {
			if member, ok := decodeElement(content); ok {
				s.Members[member] = struct{}{}
			}
		}
	}
}

func text(content []byte) string { return strings.TrimRight(string(content), "\x00") }

// decodeElement is the inverse of encodeElement.
func decodeElement(element []byte) (ruleset.Member, bool) {
	var addr netip.Addr
	var member ruleset.Member
	bits := -1
	for kind, content := range nlattr.All(element) {
		switch {
		case kind == nl.IPSET_ATTR_IP:
			addr = decodeAddr(content)
		case kind == nl.IPSET_ATTR_IP2:
			member.Server = decodeAddr(content)
		case kind == nl.IPSET_ATTR_CIDR && len(content) == 1:
			bits = int(content[0])
		case kind == nl.IPSET_ATTR_PROTO && len(content) == 1:
			member.Protocol = content[0]
		case kind == nl.IPSET_ATTR_PORT && len(content) == 2:
			member.Port = binary.BigEndian.Uint16(content)
		}
	}
	if bits < 0 {
		bits = addr.BitLen()
	}
	member.Prefix = netip.PrefixFrom(addr, bits)
	return member, member.Prefix.IsValid()
}

func decodeAddr(content []byte) (addr netip.Addr) {
	for _, ip := range nlattr.All(content) {
		addr, _ = netip.AddrFromSlice(ip)
	}
	return addr
}
