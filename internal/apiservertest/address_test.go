package apiservertest

import (
	"net"
	"os/exec"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// An address that was given to a test is free and stays that test's own.
func TestAddressesAreFreeAndGivenOnce(t *testing.T) {
	given := map[string]bool{}
	for range 50 {
		address := Address(t)
		require.False(t, given[address], "%s was given twice", address)
		given[address] = true
		_, text, err := net.SplitHostPort(address)
		require.NoError(t, err)
		port, err := strconv.Atoi(text)
		require.NoError(t, err)
		require.Less(t, port, 32768, "the kernel chooses that port for connections")
		mine, err := keep(address)
		require.NoError(t, err)
		require.False(t, mine, "another test may take %s", address)
	}
}

// A program may listen at its address at once, whatever else is being started: nothing
// listened there before.
func TestNothingHoldsAnAddress(t *testing.T) {
	var starters sync.WaitGroup
	defer starters.Wait()
	stop := make(chan struct{})
	defer close(stop)
	for range 4 {
		starters.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					_ = exec.Command("true").Run()
				}
			}
		})
	}
	for range 200 {
		listener, err := net.Listen("tcp", Address(t))
		require.NoError(t, err)
		require.NoError(t, listener.Close())
	}
}

// Where something listens, the address is passed over.
func TestAnAddressInUseIsSeen(t *testing.T) {
	listener, err := net.Listen("tcp", loopback+":0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	require.True(t, listens(listener.Addr().String()))
}
