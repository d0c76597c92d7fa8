// Package nlattr writes and reads the attributes of netlink messages (struct nlattr
// in linux/netlink.h): length, type, content, padding to four bytes.
//
// The netlink library starts a goroutine for each list of attributes that it reads
// and has no way to write many elements: a large set, or a full table of
// connections, would take many seconds.
package nlattr

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// Begin starts an attribute that holds further attributes, and returns its place. End writes its
// length there.
func Begin(b *[]byte, kind int) int {
	start := len(*b)
	*b = binary.NativeEndian.AppendUint16(append(*b, 0, 0), uint16(kind))
	return start
}

// End ends the attribute that Begin started at the place.
func End(b []byte, start int) { binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start)) }

// Append writes an attribute that holds no further attribute.
func Append(b *[]byte, kind int, content ...byte) {
	start := Begin(b, kind)
	*b = append(*b, content...)
	End(*b, start)
	*b = append(*b, make([]byte, padded(len(*b))-len(*b))...)
}

// All lists the attributes in b: their types, without flags, and their contents, which are parts
// of b. It ends at the first attribute that isn't whole.
func All(b []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			length := int(binary.NativeEndian.Uint16(b))
			kind := int(binary.NativeEndian.Uint16(b[2:])) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if length < unix.SizeofNlAttr || length > len(b) || !yield(kind, b[unix.SizeofNlAttr:length]) {
				return
			}
			b = b[min(padded(length), len(b)):]
		}
	}
}

func padded(length int) int { return (length + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }
