package ipset

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// batchBytes is about how many bytes of one message the elements take. A message for
// each element would cost a round trip to the kernel for each. An attribute's length
// has 16 bits, so it ends at 64 KiB. Messages longer than batchBytes save nothing more.
const batchBytes = 32 << 10

// headBytes is the room for the part of a message before the elements, without the set's name.
const headBytes = 32

// errFull is the kernel's answer to an element that a set has no room for:
// IPSET_ERR_HASH_FULL (linux/netfilter/ipset/ip_set_hash.h).
var errFull = errors.New("the set is full")

// inSets splits changes into runs of changes of one set.
func inSets(changes []Change) [][]Change {
	var runs [][]Change
	for start, i := 0, 1; i <= len(changes); i++ {
		if i == len(changes) || changes[i].Set != changes[start].Set {
			runs = append(runs, changes[start:i])
			start = i
		}
	}
	return runs
}

// addToSet adds elements to one set and makes the set larger where it is full.
func (k *Kernel) addToSet(changes []Change) error {
	rest, err := k.sendWithout(nl.IPSET_CMD_ADD, changes)
	if errors.Is(err, errFull) {
		// Some elements of the batch may be in already. They are sent again.
		if err = k.enlarge(changes[0].Set, len(rest)); err == nil {
			rest, err = k.sendWithout(nl.IPSET_CMD_ADD, rest)
		}
	}
	if err != nil {
		return fmt.Errorf("adding %s to ipset %s: %w", describe(rest), changes[0].Set, err)
	}
	return nil
}

func (k *Kernel) deleteFromSet(changes []Change) error {
	rest, err := k.sendWithout(nl.IPSET_CMD_DEL, changes)
	if err != nil {
		return fmt.Errorf("deleting %s from ipset %s: %w", describe(rest), changes[0].Set, err)
	}
	return nil
}

// sendAll sends changes of one set in batches. After an error it returns the changes from the
// batch that failed on.
func (k *Kernel) sendAll(command int, changes []Change) ([]Change, error) {
	for len(changes) > 0 {
		elements, n := encodeElements(changes)
		if err := k.send(command, changes[0].Set, elements); err != nil {
			return changes, err
		}
		changes = changes[n:]
	}
	return nil, nil
}

func describe(changes []Change) string {
	if len(changes) == 1 {
		return changes[0].Member.Prefix.String()
	}
	return fmt.Sprintf("%s or one of %d more", changes[0].Member.Prefix, len(changes)-1)
}

// send asks the kernel to add or delete elements. The kernel stops at the first element that it
// refuses. Without NLM_F_EXCL it accepts to add an element that is there, and to delete one that
// isn't.
func (k *Kernel) send(command int, set string, elements []byte) error {
	k.count()
	attributes := make([]byte, 0, len(set)+len(elements)+headBytes)
	nlattr.Append(&attributes, nl.IPSET_ATTR_PROTOCOL, nl.IPSET_PROTOCOL)
	nlattr.Append(&attributes, nl.IPSET_ATTR_SETNAME, append([]byte(set), 0)...)
	// The kernel wants a line number with a list of elements, for "ipset restore".
	nlattr.Append(&attributes, nl.IPSET_ATTR_LINENO|unix.NLA_F_NET_BYTEORDER, 0, 0, 0, 0)
	err := k.changes.Ask(nfnetlink.Request{
		Subsystem:  unix.NFNL_SUBSYS_IPSET,
		Command:    command,
		Change:     true,
		Attributes: append(attributes, elements...),
	}, func(nfnetlink.Reply) {})
	var errno syscall.Errno
	if errors.As(err, &errno) && errno == nl.IPSET_ERR_TYPE_SPECIFIC {
		return errFull
	}
	return asSetError(err)
}

// encodeElements returns the attribute that holds the first elements, and the number of these.
func encodeElements(changes []Change) ([]byte, int) {
	b := make([]byte, 0, min(batchBytes, len(changes)*64))
	list := nlattr.Begin(&b, nl.IPSET_ATTR_ADT|unix.NLA_F_NESTED)
	n := 0
	for n < len(changes) && len(b) < batchBytes {
		encodeElement(&b, &changes[n])
		n++
	}
	nlattr.End(b, list)
	return b, n
}

func encodeElement(b *[]byte, change *Change) {
	element := nlattr.Begin(b, nl.IPSET_ATTR_DATA|unix.NLA_F_NESTED)
	encodeAddr(b, nl.IPSET_ATTR_IP, change.Member.Prefix.Addr())
	switch change.Type {
	case ruleset.HashIP:
	case ruleset.HashNet:
		nlattr.Append(b, nl.IPSET_ATTR_CIDR, byte(change.Member.Prefix.Bits()))
	case ruleset.HashIPPort, ruleset.HashIPPortIP:
		nlattr.Append(b, nl.IPSET_ATTR_PROTO, change.Member.Protocol)
		nlattr.Append(b, nl.IPSET_ATTR_PORT|unix.NLA_F_NET_BYTEORDER, byte(change.Member.Port>>8), byte(change.Member.Port))
		if change.Type == ruleset.HashIPPortIP {
			encodeAddr(b, nl.IPSET_ATTR_IP2, change.Member.Server)
		}
	}
	nlattr.End(*b, element)
}

func encodeAddr(b *[]byte, kind int, addr netip.Addr) {
	ip := nlattr.Begin(b, kind|unix.NLA_F_NESTED)
	if addr.Is4() {
		v4 := addr.As4()
		nlattr.Append(b, nl.IPSET_ATTR_IPADDR_IPV4|unix.NLA_F_NET_BYTEORDER, v4[:]...)
	} else {
		v6 := addr.As16()
		nlattr.Append(b, nl.IPSET_ATTR_IPADDR_IPV6|unix.NLA_F_NET_BYTEORDER, v6[:]...)
	}
	nlattr.End(*b, ip)
}
