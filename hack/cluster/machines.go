//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
)

// startAll makes the namespaces of the cluster's machines, the links between them and the
// machines' inits.
func startAll(r *record) error {
	if err := shareNetnsDir(r); err != nil {
		return err
	}
	machines := r.machines()
	say("making %d network namespaces: %s", len(machines), machineNames(machines))
	if err := makeNetwork(r.Options, machines); err != nil {
		return err
	}
	return startInits(machines)
}

// makeMountPoints notes which are missing before it makes them, so that "down"
// removes those and no others.
func makeMountPoints(r *record) error {
	for _, folder := range privateFolders {
		if !exists(folder) {
			r.MountPoints = append(r.MountPoints, folder)
		}
	}
	if err := r.write(); err != nil {
		return err
	}
	for _, folder := range r.MountPoints {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("making a mount point: %w", err)
		}
	}
	return nil
}

func startInits(machines []machine) error {
	return inParallel(machines, func(m machine) error {
		if m.name == world {
			return nil // a host without processes
		}
		for _, folder := range privateFolders {
			if err := os.MkdirAll(m.privatePath(folder), 0o755); err != nil {
				return fmt.Errorf("making a folder of %s: %w", m.name, err)
			}
		}
		return m.startInit()
	})
}

func machineNames(machines []machine) string {
	var names []string
	for _, m := range machines {
		names = append(names, m.netns())
	}
	return strings.Join(names, ", ")
}
