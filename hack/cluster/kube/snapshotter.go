//go:build linux

package kube

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/hack/cluster/machine"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

// chooseSnapshotter tries to mount overlayfs where containerd would.
func chooseSnapshotter() string {
	err := machine.OnThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return err
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return err
		}
		return mountOverlay(filepath.Join(machine.StateDir, "overlay-test"))
	})
	if err != nil {
		progress.Say("can't mount overlayfs below %s (%v): containers get full copies of their images", machine.StateDir, err)
		return "native"
	}
	return "overlayfs"
}

// mountOverlay leaves the mount to end with the thread's mount namespace.
func mountOverlay(dir string) error {
	defer func() { _ = os.RemoveAll(dir) }()
	for _, sub := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", dir)
	merged := filepath.Join(dir, "merged")
	if err := unix.Mount("overlay", merged, "overlay", 0, options); err != nil {
		return err
	}
	return unix.Unmount(merged, unix.MNT_DETACH)
}
