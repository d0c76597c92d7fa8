package nlattr_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/kernel/nlattr"
)

func TestAttributesReadAsTheyAreWritten(t *testing.T) {
	var b []byte
	outer := nlattr.Begin(&b, 7|unix.NLA_F_NESTED)
	nlattr.Append(&b, 1|unix.NLA_F_NET_BYTEORDER, 0x12)
	nlattr.Append(&b, 2, 1, 2, 3, 4, 5)
	nlattr.End(b, outer)
	nlattr.Append(&b, 8)
	require.Zero(t, len(b)%unix.NLA_ALIGNTO)

	got := map[int][]byte{}
	for kind, content := range nlattr.All(b) {
		got[kind] = content
		if kind == 7 {
			for kind, content := range nlattr.All(content) {
				got[kind] = content
			}
		}
	}
	require.Len(t, got, 4)
	require.Equal(t, []byte{0x12}, got[1])
	require.Equal(t, []byte{1, 2, 3, 4, 5}, got[2])
	require.Empty(t, got[8])
}

// Whatever the bytes are, reading ends, and within them.
func FuzzAll(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 2, 0, 9})
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		read := 0
		for _, content := range nlattr.All(b) {
			read += unix.SizeofNlAttr + len(content)
		}
		require.LessOrEqual(t, read, len(b))
	})
}
