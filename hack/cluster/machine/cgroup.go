//go:build linux

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/hack/cluster/files"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

// cgroupName is the one group, in each hierarchy, that holds all groups of the
// cluster. Pods are in cgroupName/NODE/pods.
const cgroupName = "moat-cluster"

const cgroupRoot = "/sys/fs/cgroup"

// PodsCgroup is the group that holds the pods of the node, from the root of each hierarchy.
func (m Machine) PodsCgroup() string { return "/" + cgroupName + "/" + m.Name + "/pods" }

// unifiedCgroups says whether the machine has cgroup v2 alone.
func unifiedCgroups() bool {
	var fs unix.Statfs_t
	return unix.Statfs(cgroupRoot, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// openDaemonGroup returns the cgroup v2 group for the machine's daemons, which
// takes them out of the user's session. With v1 it is nil: the daemons stay
// where they are, since every v1 group would need cpus and memory nodes first.
func (m Machine) openDaemonGroup() (*os.File, error) {
	if !unifiedCgroups() {
		return nil, nil
	}
	dir := filepath.Join(cgroupRoot, cgroupName, m.Name, "daemons")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making cgroup %s: %w", dir, err)
	}
	group, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening cgroup: %w", err)
	}
	return group, nil
}

// MakePodsCgroup makes the group for a node's pods, in every hierarchy. What a
// group may use is for its parents to hand down, which the kernel leaves to us.
func (m Machine) MakePodsCgroup() error {
	hierarchies, inherit := []string{cgroupRoot}, passControllers
	if !unifiedCgroups() {
		hierarchies, inherit = v1Hierarchies(), copyCPUSet
	}
	for _, path := range hierarchies {
		for _, element := range []string{cgroupName, m.Name, "pods"} {
			parent := path
			path = filepath.Join(path, element)
			if err := os.MkdirAll(path, 0o755); err != nil {
				return fmt.Errorf("making cgroup %s: %w", path, err)
			}
			if err := inherit(parent, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyCPUSet gives a cgroup v1 group its parent's processors and memory nodes:
// it has none at first, if it is of the hierarchy that assigns them.
func copyCPUSet(parent, group string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		value, err := os.ReadFile(filepath.Join(parent, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("reading a cgroup: %w", err)
		}
		if err := os.WriteFile(filepath.Join(group, file), value, 0o644); err != nil {
			return fmt.Errorf("writing a cgroup: %w", err)
		}
	}
	return nil
}

// passControllers passes every cgroup v2 controller on to the children of
// parent. The ones that kubelet can't do without must be among them.
func passControllers(parent, _ string) error {
	available, err := os.ReadFile(filepath.Join(parent, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("reading the controllers of cgroup %s: %w", parent, err)
	}
	for _, controller := range strings.Fields(string(available)) {
		err := os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
		if err != nil && slices.Contains([]string{"cpu", "memory", "pids"}, controller) {
			return fmt.Errorf("passing the %s controller on from cgroup %s: %w", controller, parent, err)
		}
	}
	return nil
}

// v1Hierarchies are the mount points of cgroup v1.
func v1Hierarchies() []string { return cgroupMounts("cgroup") }

// cgroupDirs are the cluster's groups, one for each hierarchy that has it.
func cgroupDirs() []string {
	var dirs []string
	for _, mount := range cgroupMounts("cgroup", "cgroup2") {
		if dir := filepath.Join(mount, cgroupName); files.Exists(dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

func cgroupMounts(kinds ...string) []string {
	data, _ := os.ReadFile("/proc/self/mountinfo") // always there on Linux
	var mounts []string
	for line := range strings.Lines(string(data)) {
		if kind, mount := parseMount(line); slices.Contains(kinds, kind) && !slices.Contains(mounts, mount) {
			mounts = append(mounts, mount)
		}
	}
	return mounts
}

// parseMount reads the kind and the mount point of a line of
// /proc/self/mountinfo (proc(5): the kind follows a lone dash).
func parseMount(line string) (kind, mount string) {
	before, after, _ := strings.Cut(line, " - ")
	fields, rest := strings.Fields(before), strings.Fields(after)
	if len(fields) < 5 || len(rest) < 1 {
		return "", ""
	}
	return rest[0], fields[4]
}

// cgroupPIDs are the processes in the cluster's groups.
func cgroupPIDs() ([]int, error) {
	var pids []int
	for _, dir := range cgroupDirs() {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Name() != "cgroup.procs" {
				return nil // a group may go while we look
			}
			data, _ := os.ReadFile(path)
			for _, field := range strings.Fields(string(data)) {
				if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
					pids = append(pids, pid)
				}
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("listing the processes of cgroup %s: %w", dir, err)
		}
	}
	return pids, nil
}

// removeCgroups removes the cluster's groups, innermost first. They must be
// without processes.
func removeCgroups() error {
	for _, dir := range cgroupDirs() {
		if err := removeCgroup(dir); err != nil {
			return err
		}
	}
	return nil
}

func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading cgroup: %w", err)
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeCgroup(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	// rmdir, not RemoveAll: a group's files can't be removed. EBUSY goes away
	// when the kernel has done with the last process.
	return progress.WaitUntil(removalTimeout, func() (bool, error) {
		err := unix.Rmdir(dir)
		if errors.Is(err, unix.EBUSY) {
			return false, nil
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return false, fmt.Errorf("removing cgroup %s: %w", dir, err)
		}
		return true, nil
	})
}
