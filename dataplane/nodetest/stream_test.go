package nodetest_test

import (
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/nodetest"
)

// Streams to one address are accepted by one listener, which stays. A listener that is
// closed leaves its port in use while some program is being started, and the next
// stream to the address couldn't be made.
func TestStreamsToOneAddressShareAListener(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	server, client := node.AddPod(t, "10.244.1.10"), node.AddPod(t, "10.244.1.11")
	target := netip.MustParseAddrPort("10.244.1.10:20000")
	first := nodetest.StreamTCP(t, client, server, target, target)
	listeners := listening(t, server)
	require.Len(t, listeners, 1)
	second := nodetest.StreamTCP(t, client, server, target, target)
	require.Equal(t, listeners, listening(t, server), "it isn't the same socket")
	for _, s := range []*nodetest.Stream{first, second} {
		require.Eventually(t, func() bool { return s.Up.Came() > 0 && s.Down.Came() > 0 }, 5*time.Second, time.Millisecond)
	}
}

// listening returns the inodes of the sockets that listen for TCP over IPv4 in a host.
func listening(t *testing.T, host *nodetest.Host) (inodes []string) {
	t.Helper()
	const listen = "0A" // from include/net/tcp_states.h
	require.NoError(t, host.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/net/tcp")
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 9 && fields[3] == listen {
				inodes = append(inodes, fields[9])
			}
		}
		return err
	}))
	return inodes
}
