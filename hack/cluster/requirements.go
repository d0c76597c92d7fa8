//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// checkMachine says, before anything is made, what this machine lacks.
func checkMachine() error {
	if err := requireRoot(); err != nil {
		return err
	}
	err := onThread(func() error {
		return unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS)
	})
	if err != nil {
		return fmt.Errorf("making namespaces: %w; in a container, run it privileged", err)
	}
	return nil
}

func requireRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the cluster needs root for its namespaces and mounts: run this command as root (sudo)")
	}
	return nil
}
