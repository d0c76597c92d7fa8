//go:build linux

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const netnsDir = "/run/netns"

// shareNetnsDir makes the folder of named namespaces a mount, as the first "ip
// netns add" does. If that came later than our namespaces, each of them would be
// mounted twice, one of them out of reach.
func shareNetnsDir(r *Record) error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return fmt.Errorf("making %s: %w", netnsDir, err)
	}
	err := unix.Mount("", netnsDir, "", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) { // EINVAL: it is no mount
		return err
	}
	if err := unix.Mount(netnsDir, netnsDir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", netnsDir, err)
	}
	r.MountedNetnsDir = true
	if err := r.Write(); err != nil {
		return err
	}
	return unix.Mount("", netnsDir, "", unix.MS_SHARED|unix.MS_REC, "")
}

// unshareNetnsDir takes the mount away again, unless others use it by now.
func unshareNetnsDir() {
	entries, err := os.ReadDir(netnsDir)
	if err != nil || len(entries) > 0 {
		return
	}
	if err := unix.Unmount(netnsDir, 0); err == nil {
		_ = os.Remove(netnsDir)
	}
}

// makeNetns makes the machine's network namespace under its name, as
// "ip netns add" would.
func (m Machine) makeNetns() error {
	return OnThread(func() error {
		handle, err := netns.NewNamed(m.netns())
		if err != nil {
			return fmt.Errorf("making network namespace %s: %w", m.netns(), err)
		}
		return handle.Close()
	})
}

// removeNetns removes the name; the kernel removes the namespace when its last
// process has ended.
func (m Machine) removeNetns() error {
	path := filepath.Join(netnsDir, m.netns())
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmounting network namespace %s: %w", m.netns(), err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing network namespace %s: %w", m.netns(), err)
	}
	return nil
}

// InNetns runs f on a thread in the machine's network namespace. What f starts
// or opens belongs to that namespace; goroutines that it starts don't.
func (m Machine) InNetns(f func() error) error {
	return OnThread(func() error {
		if err := m.EnterNetns(); err != nil {
			return err
		}
		return f()
	})
}

// EnterNetns moves the calling thread, which must be locked.
func (m Machine) EnterNetns() error {
	handle, err := netns.GetFromName(m.netns())
	if err != nil {
		return fmt.Errorf("opening network namespace %s: %w", m.netns(), err)
	}
	defer func() { _ = handle.Close() }()
	if err := netns.Set(handle); err != nil {
		return fmt.Errorf("entering network namespace %s: %w", m.netns(), err)
	}
	return nil
}

// Inside runs f on a thread in every namespace of the machine's init. Only the
// processes that f starts are in its PID namespace.
func (m Machine) Inside(f func() error) error {
	init, err := m.init()
	if err != nil {
		return err
	}
	return OnThread(func() error {
		// A thread that shares its root and working folder may not change its mount namespace.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fmt.Errorf("detaching a thread: %w", err)
		}
		if err := enterAll(init.PID); err != nil {
			return fmt.Errorf("entering %s: %w", m.Name, err)
		}
		return f()
	})
}

// enterAll moves the calling thread into the namespaces of a process. The files
// are opened first: in the new mount namespace, /proc is another one.
func enterAll(pid int) error {
	kinds := []string{"net", "uts", "pid", "mnt"}
	fds := make([]int, len(kinds))
	for i, kind := range kinds {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening %s namespace: %w", kind, err)
		}
		defer func() { _ = unix.Close(fd) }()
		fds[i] = fd
	}
	for i, kind := range kinds {
		if err := unix.Setns(fds[i], 0); err != nil {
			return fmt.Errorf("entering %s namespace: %w", kind, err)
		}
	}
	return nil
}

// init is the recorded init of the machine.
func (m Machine) init() (Process, error) {
	data, err := os.ReadFile(filepath.Join(pidDir, m.Name, InitCommand))
	if err != nil {
		return Process{}, fmt.Errorf("%s isn't running: no record of its init", m.Name)
	}
	p, err := parseProcess(string(data))
	if err == nil && !p.Alive() {
		err = fmt.Errorf("%s isn't running: its init (process %d) has ended; run %s down, then up", m.Name, p.PID, ProgramCommand)
	}
	return p, err
}

// OnThread runs f on a thread that ends with it, so that whatever namespaces f
// enters are no other goroutine's.
func OnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime then ends the thread
		result <- f()
	}()
	return <-result
}
