//go:build linux

package machine

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// CheckHost says, before anything is made, what this host lacks.
func CheckHost() error {
	if err := RequireRoot(); err != nil {
		return err
	}
	err := OnThread(func() error {
		return unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS)
	})
	if err != nil {
		return fmt.Errorf("making namespaces: %w; in a container, run it privileged", err)
	}
	return nil
}

// RequireRoot refuses to go on as another user.
func RequireRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the cluster needs root for its namespaces and mounts: run this command as root (sudo)")
	}
	return nil
}
