package ipset

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

// The attributes of netlink messages (struct nlattr in linux/netlink.h): length,
// type, content, padding to four bytes. They are written and read here since the
// library starts a goroutine for each list of attributes that it reads and has no
// way to write many elements: a large set would take many seconds.

// begin starts an attribute and returns where it is; end writes its length there.
func begin(b *[]byte, kind int) int {
	start := len(*b)
	*b = binary.NativeEndian.AppendUint16(append(*b, 0, 0), uint16(kind))
	return start
}

func end(b []byte, start int) { binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start)) }

// attribute writes an attribute that holds no others.
func attribute(b *[]byte, kind int, content ...byte) {
	start := begin(b, kind)
	*b = append(*b, content...)
	end(*b, start)
	*b = append(*b, make([]byte, padded(len(*b))-len(*b))...)
}

// attributes lists types and contents. It ends at the first attribute that isn't
// whole.
func attributes(b []byte) iter.Seq2[int, []byte] {
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
