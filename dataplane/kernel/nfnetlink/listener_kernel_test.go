package nfnetlink_test

import (
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
	"github.com/moat-dev/moat/dataplane/nodetest"
)

// A transaction of any size is heard once, messages of other kinds aren't, and a listener
// that is closed says so.
func TestListener(t *testing.T) {
	nodetest.RequireKernel(t)
	node := nodetest.NewNode(t)
	var listener *nfnetlink.Listener
	require.NoError(t, node.Do(func() (err error) {
		listener, err = nfnetlink.Listen()
		return err
	}))
	heard := make(chan error)
	go func() {
		for {
			err := listener.Wait()
			heard <- err
			if err != nil {
				return
			}
		}
	}()
	restore := func(rules int) {
		script := "*mangle\n:MOAT-A - [0:0]\n" + strings.Repeat("-A MOAT-A -s 192.0.2.1 -m comment --comment moat -j RETURN\n", rules) + "COMMIT\n"
		require.NoError(t, node.Do(func() error {
			cmd := exec.Command("iptables-nft-restore", "--noflush")
			cmd.Stdin = strings.NewReader(script)
			return cmd.Run()
		}))
	}
	count := func() (n int) {
		for {
			select {
			case err := <-heard:
				require.NoError(t, err)
				n++
			case <-time.After(300 * time.Millisecond):
				return n
			}
		}
	}
	restore(1) // makes the table, which may be a transaction of its own
	require.Positive(t, count())
	restore(2000)
	require.Equal(t, 1, count())
	require.NoError(t, node.Do(func() error { return exec.Command("iptables-nft-save", "-t", "mangle").Run() }))
	require.Zero(t, count(), "nothing changed")
	listener.Close()
	select {
	case err := <-heard:
		require.Error(t, err)
	case <-time.After(5 * time.Second):
		require.Fail(t, "it still waits")
	}
}
