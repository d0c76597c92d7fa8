//go:build linux

package main

func downCommand(args []string) error {
	flags := newFlags("down")
	force := flags.Bool("force", false, "also remove another checkout's cluster")
	if err := parseNoArguments(flags, args); err != nil {
		return err
	}
	if err := checkMachine(); err != nil {
		return err
	}
	unlock, err := lockMachine()
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
	r, err := readRecord()
	if err != nil || r == nil {
		return err
	}
	if ended, err := r.ended(); err != nil || ended {
		return err
	}
	checkout, err := findCheckout()
	if err != nil {
		return err
	}
	return r.checkOwner(checkout)
}

func down() error {
	gone, err := removeAll()
	if err != nil {
		return err
	}
	if gone == (removed{}) {
		say("nothing to remove")
		return nil
	}
	say("removed: ended %d daemons and their pods, removed %d network namespaces; built binaries and images stay cached", gone.processes, gone.namespaces)
	return nil
}
