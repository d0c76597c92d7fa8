package ipset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// leastBuckets is the size of a new set's hash table: the kernel's least
// (IPSET_MIMINAL_HASHSIZE in net/netfilter/ipset/ip_set_hash_gen.h). Its default of 1024
// buckets takes 8 KB before the set has an element, and most sets hold a few pods. The
// kernel doubles the table as the set grows (mtype_resize in the same file).
const leastBuckets = 64

// revisions are the oldest revisions of each type that have what Moat uses, so that old kernels
// know them. For a type that isn't listed it is 0.
var revisions = map[ruleset.SetType]byte{ruleset.HashIP: 1, ruleset.HashIPPort: 1, ruleset.HashIPPortIP: 1}

// create makes a set without members. No set of that name may exist.
func (k *Kernel) create(set *ruleset.Set, capacity uint32) error {
	k.count()
	var err error
	if k.Creating != nil {
		err = k.Creating()
	}
	if err == nil {
		err = k.changes.Ask(nfnetlink.Request{
			Subsystem: unix.NFNL_SUBSYS_IPSET, Command: nl.IPSET_CMD_CREATE, Change: true, New: true,
			Attributes: creation(set, capacity),
		}, func(nfnetlink.Reply) {})
	}
	if err != nil {
		return fmt.Errorf("creating ipset %s of type %s: %w", set.Name, set.Type, ofCreating(set.Type, asSetError(err)))
	}
	return nil
}

// creation describes a new set (IPSET_CMD_CREATE in linux/netfilter/ipset/ip_set.h).
func creation(set *ruleset.Set, capacity uint32) []byte {
	family := byte(unix.AF_INET)
	if set.Family == ruleset.IPv6 {
		family = unix.AF_INET6
	}
	var b []byte
	nlattr.Append(&b, nl.IPSET_ATTR_PROTOCOL, nl.IPSET_PROTOCOL)
	nlattr.Append(&b, nl.IPSET_ATTR_SETNAME, append([]byte(set.Name), 0)...)
	nlattr.Append(&b, nl.IPSET_ATTR_TYPENAME, append([]byte(set.Type), 0)...)
	nlattr.Append(&b, nl.IPSET_ATTR_REVISION, revisions[set.Type])
	nlattr.Append(&b, nl.IPSET_ATTR_FAMILY, family)
	data := nlattr.Begin(&b, nl.IPSET_ATTR_DATA|unix.NLA_F_NESTED)
	appendNumber(&b, nl.IPSET_ATTR_HASHSIZE, leastBuckets)
	appendNumber(&b, nl.IPSET_ATTR_MAXELEM, capacity)
	nlattr.End(b, data)
	return b
}

func appendNumber(b *[]byte, kind int, number uint32) {
	nlattr.Append(b, kind|unix.NLA_F_NET_BYTEORDER, binary.BigEndian.AppendUint32(nil, number)...)
}

// asSetError makes an error of ipset, with its text, of a number of the kernel's.
func asSetError(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) && errno >= nl.IPSET_ERR_PRIVATE {
		return nl.IPSetError(errno)
	}
	return err
}
