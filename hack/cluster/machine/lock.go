//go:build linux

package machine

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// lockName is an abstract Unix socket: a lock that leaves no file behind and
// that the kernel releases with the process, however it ends.
const lockName = "@moat-cluster"

// Lock makes sure that no second "up" or "down" runs at the same time.
func Lock() (func(), error) {
	listener, err := net.Listen("unix", lockName)
	if err == nil {
		return func() { _ = listener.Close() }, nil
	}
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("another up or down runs on this machine%s: wait for it to end", lockHolder())
	}
	return nil, fmt.Errorf("taking the lock: %w", err)
}

// lockHolder names the process that holds the lock, if it can be told.
func lockHolder() string {
	conn, err := net.Dial("unix", lockName)
	if err != nil {
		return ""
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return ""
	}
	holder := ""
	_ = raw.Control(func(fd uintptr) {
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			holder = fmt.Sprintf(" (process %d)", cred.Pid)
		}
	})
	return holder
}
