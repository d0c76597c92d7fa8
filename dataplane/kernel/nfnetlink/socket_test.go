package nfnetlink

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// put appends a message as the kernel writes it.
func put(b []byte, kind int, sequence uint32, body ...byte) []byte {
	length := unix.SizeofNlMsghdr + len(body)
	b = binary.NativeEndian.AppendUint32(b, uint32(length))
	b = binary.NativeEndian.AppendUint16(b, uint16(kind))
	b = binary.NativeEndian.AppendUint16(b, 0)
	b = binary.NativeEndian.AppendUint32(b, sequence)
	b = append(append(b, 0, 0, 0, 0), body...)
	return append(b, make([]byte, aligned(length)-length)...)
}

func TestMessages(t *testing.T) {
	b := put(put(nil, 7, 1, 1, 2, 3), 8, 2)
	for cut := range len(b) { // whatever comes, it ends
		for m := range messages(b[:cut]) {
			require.LessOrEqual(t, len(m.body), 3)
		}
	}
	var got []message
	for m := range messages(b) {
		got = append(got, m)
	}
	require.Equal(t, []message{{kind: 7, sequence: 1, body: []byte{1, 2, 3}}, {kind: 8, sequence: 2, body: []byte{}}}, got)

	binary.NativeEndian.PutUint32(b, 3) // shorter than its own header
	for range messages(b) {
		require.Fail(t, "no message is that short")
	}
}

func TestOutcome(t *testing.T) {
	require.NoError(t, outcome(nil))
	require.NoError(t, outcome([]byte{0, 0, 0, 0}))
	refused := -int32(unix.EPERM)
	require.ErrorIs(t, outcome(binary.NativeEndian.AppendUint32(nil, uint32(refused))), unix.EPERM)
}

// An answer of the kernel, its refusal, and an answer that is longer than the buffer.
func TestAsk(t *testing.T) {
	nodetest.RequireKernel(t)
	require.NoError(t, nodetest.NewNode(t).Do(func() error {
		for _, buffer := range []int{Short, 8} {
			s, err := Open(buffer)
			require.NoError(t, err)
			defer s.Close()
			replies := 0
			generation := Request{Subsystem: unix.NFNL_SUBSYS_NFTABLES, Command: unix.NFT_MSG_GETGEN}
			err = s.Ask(generation, func(Reply) { replies++ })
			if buffer == 8 {
				require.ErrorIs(t, err, unix.EMSGSIZE)
				continue
			}
			require.NoError(t, err)
			require.Equal(t, 1, replies)
			require.Error(t, s.Ask(Request{Subsystem: 250}, func(Reply) { replies++ }))
			require.NoError(t, s.Ask(generation, func(Reply) { replies++ }), "it goes on after an error")
			require.Equal(t, 2, replies)
		}
		return nil
	}))
}
