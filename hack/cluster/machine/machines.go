//go:build linux

package machine

import (
	"fmt"
	"os"
	"strings"

	"github.com/moat-dev/moat/hack/cluster/files"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

// StartAll makes the namespaces of the cluster's machines, the links between them and the
// machines' inits.
func StartAll(r *Record) error {
	if err := shareNetnsDir(r); err != nil {
		return err
	}
	machines := r.Machines()
	progress.Say("making %d network namespaces: %s", len(machines), machineNames(machines))
	if err := makeNetwork(r.Options, machines); err != nil {
		return err
	}
	return startInits(machines)
}

// MakeMountPoints notes which are missing before it makes them, so that "down"
// removes those and no others.
func MakeMountPoints(r *Record) error {
	for _, folder := range privateFolders {
		if !files.Exists(folder) {
			r.MountPoints = append(r.MountPoints, folder)
		}
	}
	if err := r.Write(); err != nil {
		return err
	}
	for _, folder := range r.MountPoints {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return fmt.Errorf("making a mount point: %w", err)
		}
	}
	return nil
}

func startInits(machines []Machine) error {
	return progress.InParallel(machines, func(m Machine) error {
		if m.Name == WorldName {
			return nil // a host without processes
		}
		for _, folder := range privateFolders {
			if err := os.MkdirAll(m.privatePath(folder), 0o755); err != nil {
				return fmt.Errorf("making a folder of %s: %w", m.Name, err)
			}
		}
		return m.startInit()
	})
}

func machineNames(machines []Machine) string {
	var names []string
	for _, m := range machines {
		names = append(names, m.netns())
	}
	return strings.Join(names, ", ")
}
