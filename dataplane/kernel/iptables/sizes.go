package iptables

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/ruleset"
)

// Sizes compares the sizes of the legacy mangle tables. That costs a few microseconds. It finds
// chains and rules that were added or deleted, but not a rule that was replaced by one of the same
// size. It belongs to the network namespace of the thread that opened it and isn't safe for use by
// several goroutines at once.
type Sizes struct {
	families []sizeOf
	echoes   int // how often a change is still reported
}

// echoes is how often a change is reported again: what was repaired between two calls may have
// been damaged again in the same way.
const echoes = 10

// sizeOf reads the size of one family's table.
type sizeOf struct {
	names  *os.File // lists the tables that exist
	socket int
	level  int
	last   uint32
}

// OpenSizes makes a Sizes for the network namespace of the calling thread. A kernel
// without legacy tables has no sizes.
func OpenSizes() *Sizes {
	s := &Sizes{}
	for _, family := range ruleset.Families() {
		names, err := os.Open(legacyNames(family))
		if err != nil {
			continue
		}
		socket, err := openLegacy(family)
		if err != nil {
			_ = names.Close()
			continue
		}
		s.families = append(s.families, sizeOf{names: names, socket: socket, level: legacyLayouts[family].level})
	}
	for i := range s.families {
		s.families[i].last = s.families[i].size()
	}
	return s
}

// Close closes the sockets.
func (s *Sizes) Close() {
	for _, f := range s.families {
		_ = f.names.Close()
		_ = unix.Close(f.socket)
	}
}

// Changed reports whether the size of a table differs from that at the last call, or did so at a
// recent one.
func (s *Sizes) Changed() bool {
	s.echoes = max(0, s.echoes-1)
	for i := range s.families {
		f := &s.families[i]
		size := f.size()
		if size != f.last {
			s.echoes = echoes
		}
		f.last = size
	}
	return s.echoes > 0
}

// size returns the size in bytes of the table's rules. It is 0 where there is no table.
func (f *sizeOf) size() uint32 {
	names := make([]byte, 512)
	n, _ := f.names.ReadAt(names, 0)
	if !slices.Contains(strings.Fields(string(bytes.TrimSpace(names[:n]))), tableName) {
		return 0 // a request for its size would make the table
	}
	info := make([]byte, infoBytes)
	copy(info, tableName)
	if getsockopt(f.socket, f.level, getInfo, info) != nil {
		return 0
	}
	return binary.NativeEndian.Uint32(info[infoSizeAt:])
}
