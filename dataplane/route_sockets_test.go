package dataplane

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/host"
	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
)

// An answer of the kernel that doesn't come holds nobody for ever. The kernel can't be kept
// from answering, so this looks at how the library was told to wait.
func TestQuestionsAboutRoutesEnd(t *testing.T) {
	handle, err := host.OpenRoutes()
	require.NoError(t, err)
	defer handle.Close()
	sockets := reflect.ValueOf(handle).Elem().FieldByName("sockets")
	require.Equal(t, 1, sockets.Len())
	for _, key := range sockets.MapKeys() {
		socket := sockets.MapIndex(key).Elem().FieldByName("Socket").Elem()
		for _, timeout := range []string{"sendTimeout", "receiveTimeout"} {
			require.Equal(t, nfnetlink.AnswerWithin.Nanoseconds(), socket.FieldByName(timeout).Int(), timeout)
		}
	}
}
