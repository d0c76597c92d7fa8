package apiservertest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Ports for programs that tests start. They are below those that the kernel chooses
// from (ip_local_port_range begins at 32768), so no connection takes one by chance.
const (
	firstPort = 21000
	ports     = 9000
)

// loopback is where such programs listen.
const loopback = "127.0.0.1"

// Address returns an address of the loopback for a program that can't tell which port
// the kernel chose. Nothing listens at it, and no other test gets it while this process
// runs.
func Address(t testing.TB) string {
	t.Helper()
	address, err := reserve()
	require.NoError(t, err)
	return address
}

// reserve finds an address that nothing listens at and keeps other tests from it.
//
// It never listens at the address itself. A program that is being started has copies of
// this process's sockets until execve closes them, so a port may be in use for some
// milliseconds after its listener was closed. In the meantime another process may take
// it, too, where the kernel chose the port.
func reserve() (string, error) {
	first := rand.IntN(ports)
	for i := range ports {
		address := fmt.Sprintf("%s:%d", loopback, firstPort+(first+i)%ports)
		mine, err := keep(address)
		if err != nil {
			return "", err
		}
		if mine && !listens(address) {
			return address, nil
		}
	}
	return "", fmt.Errorf("no port of %d to %d is free", firstPort, firstPort+ports-1)
}

// keep takes an address for this process, if no other one has it. The mark is a name of
// a Unix socket, which belongs to the network namespace as ports do and goes with the
// process.
func keep(address string) (mine bool, err error) {
	socket, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false, fmt.Errorf("marking %s as taken: %w", address, err)
	}
	err = unix.Bind(socket, &unix.SockaddrUnix{Name: "@moat-test-" + address})
	if err == nil {
		return true, nil // The socket stays open.
	}
	_ = unix.Close(socket)
	if errors.Is(err, unix.EADDRINUSE) {
		return false, nil
	}
	return false, fmt.Errorf("marking %s as taken: %w", address, err)
}

// listens reports whether something listens at an address.
func listens(address string) bool {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return !errors.Is(err, unix.ECONNREFUSED)
	}
	_ = conn.Close()
	return true
}
