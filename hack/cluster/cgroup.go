package main

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupName is the one group, in each hierarchy, that holds all groups of the
// cluster. Pods are in cgroupName/NODE/pods.
const cgroupName = "moat-cluster"

const cgroupRoot = "/sys/fs/cgroup"

func (m machine) podsCgroup() string { return "/" + cgroupName + "/" + m.name + "/pods" }

// unifiedCgroups says whether the machine has cgroup v2 alone.
func unifiedCgroups() bool {
	var fs unix.Statfs_t
	return unix.Statfs(cgroupRoot, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC
}

// openDaemonGroup returns the cgroup v2 group for the machine's daemons, which
// takes them out of the user's session. With v1 it is nil: the daemons stay
// where they are, since every v1 group would need cpus and memory nodes first.
func (m machine) openDaemonGroup() (*os.File, error) {
	if !unifiedCgroups() {
		return nil, nil
	}
	dir := filepath.Join(cgroupRoot, cgroupName, m.name, "daemons")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("making cgroup %s: %w", dir, err)
	}
	group, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("opening cgroup: %w", err)
	}
	return group, nil
}

// makePodsCgroup makes the group for a node's pods and, with v2, passes every
// controller down to it: a group has only those that its parents hand on.
func (m machine) makePodsCgroup() error {
	if !unifiedCgroups() {
		return nil // runc makes the parents of its v1 groups itself
	}
	path := cgroupRoot
	for _, element := range strings.Split(strings.Trim(m.podsCgroup(), "/"), "/") {
		if err := passControllers(path); err != nil {
			return err
		}
		path = filepath.Join(path, element)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("making cgroup %s: %w", path, err)
		}
	}
	return nil
}

func passControllers(group string) error {
	available, err := os.ReadFile(filepath.Join(group, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("reading the controllers of cgroup %s: %w", group, err)
	}
	for _, controller := range strings.Fields(string(available)) {
		err := os.WriteFile(filepath.Join(group, "cgroup.subtree_control"), []byte("+"+controller), 0o644)
		if err != nil && slices.Contains([]string{"cpu", "memory", "pids"}, controller) {
			return fmt.Errorf("passing the %s controller on from cgroup %s: %w", controller, group, err)
		}
	}
	return nil
}

// cgroupDirs are the cluster's groups, one for each hierarchy that has it.
func cgroupDirs() ([]string, error) {
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("listing cgroup hierarchies: %w", err)
	}
	defer file.Close()
	var dirs []string
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if dir, ok := cgroupDir(lines.Text()); ok && exists(dir) && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs, nil
}

// cgroupDir is the cluster's group in the hierarchy that a line of
// /proc/self/mountinfo shows (proc(5): the kind follows a lone dash).
func cgroupDir(mount string) (string, bool) {
	before, after, ok := strings.Cut(mount, " - ")
	fields := strings.Fields(before)
	if !ok || len(fields) < 5 || !strings.HasPrefix(after, "cgroup") {
		return "", false
	}
	return filepath.Join(fields[4], cgroupName), true
}

// cgroupPIDs are the processes in the cluster's groups.
func cgroupPIDs() ([]int, error) {
	dirs, err := cgroupDirs()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, dir := range dirs {
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
	dirs, err := cgroupDirs()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
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
	return waitUntil(removalTimeout, func() (bool, error) {
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
