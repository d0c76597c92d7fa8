//go:build linux

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/hack/cluster/progress"
)

// removalTimeout is how long the kernel may take to let go of something.
const removalTimeout = 10 * time.Second

// Removed counts what RemoveAll took away.
type Removed struct{ Processes, Namespaces int }

// RemoveAll removes whatever of a cluster it finds. It trusts no record to be
// complete, and it can be run again after it was interrupted: the record of the
// cluster goes last.
func RemoveAll() (Removed, error) {
	processes, err := endProcesses()
	if err != nil {
		return Removed{}, err
	}
	spaces, err := removeNamespaces()
	if err != nil {
		return Removed{}, err
	}
	if err := removeCgroups(); err != nil {
		return Removed{}, err
	}
	return Removed{processes, spaces}, removeState()
}

// endProcesses kills the inits first, with which the kernel ends everything on
// their machines, then the other recorded processes, then whatever else runs in
// the cluster's namespaces or cgroups.
func endProcesses() (int, error) {
	recorded, err := RecordedProcesses()
	if err != nil {
		return 0, err
	}
	if current, err := ReadRecord(); err == nil && current != nil && current.BootID != BootID() {
		recorded = nil // pids of before a restart mean nothing
	}
	alive := 0
	for _, p := range recorded {
		if p.Alive() {
			alive++
		}
	}
	for _, inits := range []bool{true, false} {
		for _, p := range recorded {
			if (p.Name == InitCommand) != inits {
				continue
			}
			if err := p.kill(); err != nil {
				return alive, err
			}
		}
	}
	if err := waitGone(recorded); err != nil {
		return alive, fmt.Errorf("waiting for the cluster's processes to end: %w", err)
	}
	return alive, endStrays()
}

// endStrays ends processes that are in no record: a command in a namespace, or
// an init whose "up" was killed before it could write the record.
func endStrays() error {
	var last []int
	err := progress.WaitUntil(removalTimeout, func() (bool, error) {
		pids, err := strays()
		if err != nil {
			return false, err
		}
		last = pids
		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("killing process %d: %w", pid, err)
			}
		}
		return len(pids) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("ending the processes %v in the cluster's namespaces: %w", last, err)
	}
	return nil
}

// strays lists the live processes in the cluster's network namespaces and
// cgroups.
func strays() ([]int, error) {
	pids, err := cgroupPIDs()
	if err != nil {
		return nil, err
	}
	ours := map[string]bool{}
	for _, path := range namespaceFiles() {
		var stat unix.Stat_t
		if err := unix.Stat(path, &stat); err == nil {
			ours[fmt.Sprintf("net:[%d]", stat.Ino)] = true
		}
	}
	links, err := filepath.Glob("/proc/[0-9]*/ns/net")
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	for _, link := range links {
		namespace, err := os.Readlink(link)
		pid, numErr := strconv.Atoi(strings.Split(link, "/")[2])
		if err == nil && numErr == nil && ours[namespace] {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

func namespaceFiles() []string {
	files, _ := filepath.Glob(filepath.Join(netnsDir, "moat-*"))
	var ours []string
	for _, file := range files {
		if isMachineNetns(filepath.Base(file)) {
			ours = append(ours, file)
		}
	}
	return ours
}

// isMachineNetns tells the cluster's namespaces from others that a test may
// have named alike.
func isMachineNetns(name string) bool {
	for _, m := range append(Nodes(MaxNodes), ControlPlane(), theWorld()) {
		if m.netns() == name {
			return true
		}
	}
	return false
}

func removeNamespaces() (int, error) {
	names := namespaceFiles()
	for _, file := range names {
		m := Machine{Name: strings.TrimPrefix(filepath.Base(file), "moat-")}
		if err := m.removeNetns(); err != nil {
			return 0, err
		}
	}
	return len(names), nil
}

// removeState removes the files, the cluster's record last.
func removeState() error {
	removeMountPoints()
	entries, err := os.ReadDir(StateDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the state folder: %w", err)
	}
	for _, entry := range entries {
		path := filepath.Join(StateDir, entry.Name())
		if path == recordFile {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("removing the cluster's files: %w", err)
		}
	}
	if err := os.RemoveAll(recordFile); err != nil {
		return fmt.Errorf("removing the cluster's record: %w", err)
	}
	// A folder that is somebody's mount point stays.
	if err := os.Remove(StateDir); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("removing the state folder: %w", err)
	}
	return nil
}

// removeMountPoints removes what "up" had to make outside of the state folder.
// What others have begun to use stays.
func removeMountPoints() {
	r, err := ReadRecord()
	if err != nil || r == nil {
		return
	}
	if r.MountedNetnsDir {
		unshareNetnsDir()
	}
	for _, folder := range r.MountPoints {
		_ = os.Remove(folder)
	}
}
