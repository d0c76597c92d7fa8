package iptables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Reading legacy tables (linux/netfilter_ipv4/ip_tables.h, ip6_tables.h): the
// kernel gives the table's size for its name, then the whole table.
const (
	getInfo, getEntries = 64, 65 // IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES, the same for IPv6

	tableNameBytes = 32                     // XT_TABLE_MAXNAMELEN
	infoBytes      = tableNameBytes + 13*4  // struct ipt_getinfo
	infoSizeAt     = infoBytes - 4          // its last field
	entriesHeader  = tableNameBytes + 4 + 4 // struct ipt_get_entries, the entries aligned to eight bytes
	targetHeader   = 32                     // struct xt_entry_target without its data
	targetNameAt   = 2                      // behind its size
	chainTarget    = "ERROR"                // of an entry that begins a chain, whose name is its data
)

// legacyLayout is where the parts of one rule are (struct ipt_entry, ip6t_entry).
type legacyLayout struct {
	level    int
	targetAt int // the offset of the target, 16 bits; behind it that of the next entry
	maskedAt int // what only the kernel uses, and the counters, up to header
	header   int
}

var legacyLayouts = map[ruleset.Family]legacyLayout{
	ruleset.IPv4: {level: unix.SOL_IP, targetAt: 88, maskedAt: 92, header: 112},
	ruleset.IPv6: {level: unix.SOL_IPV6, targetAt: 140, maskedAt: 144, header: 168},
}

func openLegacy(family ruleset.Family) (int, error) {
	domain := unix.AF_INET
	if family == ruleset.IPv6 {
		domain = unix.AF_INET6
	}
	return unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
}

// hashLegacy returns a hash of the family's mangle table. It is 0 where there is none.
func (o *Observer) hashLegacy(family ruleset.Family) (uint64, error) {
	if !slices.Contains(legacyTables(family), tableName) {
		return 0, nil
	}
	blob, err := o.readLegacy(family, tableName)
	if err != nil {
		return 0, err
	}
	return legacyLayouts[family].hash(blob)
}

// readLegacy returns the entries of a table. The table has to exist: a request for one that
// doesn't would make it.
func (o *Observer) readLegacy(family ruleset.Family, table string) ([]byte, error) {
	socket, open := o.legacy[family]
	if !open {
		return nil, fmt.Errorf("opening a socket: %w", unix.EAFNOSUPPORT)
	}
	level := legacyLayouts[family].level
	for range attempts {
		info := make([]byte, infoBytes)
		copy(info, table)
		if err := getsockopt(socket, level, getInfo, info); err != nil {
			return nil, err
		}
		size := binary.NativeEndian.Uint32(info[infoSizeAt:])
		entries := make([]byte, entriesHeader+int(size))
		copy(entries, table)
		binary.NativeEndian.PutUint32(entries[tableNameBytes:], size)
		err := getsockopt(socket, level, getEntries, entries)
		if err == nil {
			return entries[entriesHeader:], nil
		}
		if !errors.Is(err, unix.EAGAIN) { // with EAGAIN, the size has just changed
			return nil, err
		}
	}
	return nil, nfnetlink.ErrChanging
}

func getsockopt(socket, level, option int, value []byte) error {
	length := uint32(len(value))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(socket), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// hash hashes entries without their counters. A table of another layout is an error.
func (l legacyLayout) hash(blob []byte) (uint64, error) {
	var hash maphash.Hash
	hash.SetSeed(seed)
	read := 0
	for entry := range l.entries(blob) {
		_, _ = hash.Write(entry[:l.maskedAt])
		_, _ = hash.Write(entry[l.header:])
		read += len(entry)
	}
	if read != len(blob) {
		return 0, fmt.Errorf("%d of %d bytes are no rules: %w", len(blob)-read, len(blob), errors.ErrUnsupported)
	}
	return hash.Sum64(), nil
}

// chains returns the names of the chains that aren't built in.
func (l legacyLayout) chains(blob []byte) []string {
	var names []string
	for entry := range l.entries(blob) {
		target := entry[binary.NativeEndian.Uint16(entry[l.targetAt:]):]
		if len(target) > targetHeader && cString(target[targetNameAt:targetHeader]) == chainTarget {
			names = append(names, cString(target[targetHeader:]))
		}
	}
	// The last entry of a table is of this kind too, and begins no chain.
	return slices.DeleteFunc(names, func(name string) bool { return name == chainTarget })
}

// entries lists the entries of a table, up to the first that isn't whole.
func (l legacyLayout) entries(blob []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for len(blob) >= l.header {
			target := int(binary.NativeEndian.Uint16(blob[l.targetAt:]))
			next := int(binary.NativeEndian.Uint16(blob[l.targetAt+2:]))
			if target < l.header || next < target || next > len(blob) || !yield(blob[:next]) {
				return
			}
			blob = blob[next:]
		}
	}
}

func cString(b []byte) string {
	text, _, _ := strings.Cut(string(b), "\x00")
	return text
}
