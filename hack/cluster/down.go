//go:build linux

package main

import (
	"github.com/moat-dev/moat/hack/cluster/build"
	"github.com/moat-dev/moat/hack/cluster/machine"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

func downCommand(args []string) error {
	flags := newFlags("down")
	force := flags.Bool("force", false, "also remove another checkout's cluster")
	if err := parseNoArguments(flags, args); err != nil {
		return err
	}
	if err := machine.CheckHost(); err != nil {
		return err
	}
	unlock, err := machine.Lock()
	if err != nil {
		return err
	}
	defer unlock()
	if !*force {
		if err := checkRemovable(); err != nil {
			return err
		}
	}
	return down()
}

// checkRemovable refuses to remove another checkout's cluster while any of it runs.
// Without a record there is at most the rest of an interrupted "down".
func checkRemovable() error {
	r, err := machine.ReadRecord()
	if err != nil || r == nil {
		return err
	}
	if ended, err := r.Ended(); err != nil || ended {
		return err
	}
	checkout, err := build.FindCheckout()
	if err != nil {
		return err
	}
	return r.CheckOwner(checkout)
}

func down() error {
	gone, err := machine.RemoveAll()
	if err != nil {
		return err
	}
	if gone == (machine.Removed{}) {
		progress.Say("nothing to remove")
		return nil
	}
	progress.Say("removed: ended %d daemons and their pods, removed %d network namespaces; built binaries and images stay cached", gone.Processes, gone.Namespaces)
	return nil
}
