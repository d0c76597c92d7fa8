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

// Sizes looks at the sizes of the legacy mangle tables. That costs a few microseconds
// and shows whether chains or rules were added or deleted, but not whether a rule was replaced by
// one of its size. It belongs to the network namespace of the thread that opened it and
// isn't safe for use by several goroutines at once.
type Sizes struct {
	families []sizeOf
	echoes   int // how often a change is still reported
}

// echoes is how often a change is reported once more: what was repaired between two calls
// may have been damaged again in the same way.
const echoes = 10

// sizeOf looks at the table of one family.
type sizeOf struct {
	names  *os.File // lists the tables that there are
	socket int
	level  int
	last   uint32
}

// OpenSizes makes a Sizes for the network namespace of the calling thread. A kernel
// without legacy tables has none to look at.
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

// Close gives the sockets up.
func (s *Sizes) Close() {
	for _, f := range s.families {
		_ = f.names.Close()
		_ = unix.Close(f.socket)
	}
}

// Changed reports whether a table has another size than at the last call, or had so not
// long before.
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

// size returns the size in bytes of the table's rules; 0 where there is no table.
func (f *sizeOf) size() uint32 {
	names := make([]byte, 512)
	n, _ := f.names.ReadAt(names, 0)
	if !slices.Contains(strings.Fields(string(bytes.TrimSpace(names[:n]))), tableName) {
		return 0 // to ask for its size would make it
	}
	info := make([]byte, infoBytes)
	copy(info, tableName)
	if getsockopt(f.socket, f.level, getInfo, info) != nil {
		return 0
	}
	return binary.NativeEndian.Uint32(info[infoSizeAt:])
}
