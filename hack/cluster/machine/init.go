//go:build linux

package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/moat-dev/moat/hack/cluster/files"
)

// readyFD is where an init says that it is set up (initReady) or why not.
const (
	readyFD   = 3
	initReady = "ok"
)

// kernelTunables are the machine-wide settings that kubelet insists on writing.
// Nodes see files of their own in their place, which hold what kubelet wants:
// the user's machine keeps its settings.
var kernelTunables = map[string]string{
	"vm/overcommit_memory":      "1",
	"vm/panic_on_oom":           "0",
	"kernel/panic":              "10",
	"kernel/panic_on_oops":      "1",
	"kernel/keys/root_maxkeys":  "1000000",
	"kernel/keys/root_maxbytes": "25000000",
}

// startInit starts the machine's init in new namespaces and waits until it has
// set them up. Its end is the end of every process on the machine.
func (m Machine) startInit() error {
	ready, notify, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making a pipe: %w", err)
	}
	defer func() { _ = ready.Close() }()
	cmd := exec.Command("/proc/self/exe", InitCommand, m.Name)
	cmd.Args[0] = "moat-cluster"
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{notify}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS,
	}
	err = m.startRecorded(InitCommand, cmd, m.InNetns)
	_ = notify.Close()
	if err != nil {
		return err
	}
	message := make([]byte, 4096)
	n, _ := ready.Read(message)
	if text := string(message[:n]); text != initReady {
		return fmt.Errorf("setting up %s: init says %q", m.Name, text)
	}
	return nil
}

// RunInit is the named machine's process 1: it makes the machine's view of the file
// system and then only reaps. It returns only if that fails. The program's InitCommand
// calls it in a process that startInit has made.
func RunInit(name string) error {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)

	notify := os.NewFile(readyFD, "ready")
	result := initReady
	setUpErr := setUpMachine(name)
	if setUpErr != nil {
		result = setUpErr.Error()
	}
	_, err := notify.WriteString(result)
	if err := errors.Join(setUpErr, err, notify.Close()); err != nil {
		return err
	}
	for range children {
		reap()
	}
	return nil
}

func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

// privateFolders are the machine's own at the paths that components insist on.
var privateFolders = []string{"/var/log", "/var/lib/kubelet", "/var/lib/cni"}

// privatePath is where the machine's content of a private folder really is.
func (m Machine) privatePath(folder string) string { return m.Path("root", folder) }

// setUpMachine gives the machine a hostname, its own /proc and /run, and the
// private folders: the default paths of locks, sockets, logs and state are then
// each node's own, as they are on a real one.
func setUpMachine(name string) error {
	m := Machine{Name: name}
	if err := syscall.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("setting the hostname: %w", err)
	}
	mounts := []mount{
		{"", "/", "", unix.MS_REC | unix.MS_PRIVATE, ""},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
	}
	for _, folder := range privateFolders {
		mounts = append(mounts, mount{m.privatePath(folder), folder, "", unix.MS_BIND, ""})
	}
	// kubelet shares mounts with the containers that ask for it.
	mounts = append(mounts, mount{"", "/", "", unix.MS_REC | unix.MS_SHARED, ""})
	for _, mount := range mounts {
		if err := unix.Mount(mount.source, mount.target, mount.kind, mount.flags, mount.data); err != nil {
			return fmt.Errorf("mounting %s on %s: %w", mount.source, mount.target, err)
		}
	}
	// It was started as /proc/self/exe, and ps would call it "exe".
	if err := os.WriteFile("/proc/self/comm", []byte("moat-init"), 0o644); err != nil {
		return fmt.Errorf("setting the process name: %w", err)
	}
	return maskTunables()
}

type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func maskTunables() error {
	for name, value := range kernelTunables {
		target := filepath.Join("/proc/sys", name)
		if !files.Exists(target) {
			continue
		}
		source := filepath.Join("/run/sysctl", name)
		if err := files.WriteFile(source, value+"\n"); err != nil {
			return err
		}
		if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("masking %s: %w", target, err)
		}
	}
	return nil
}
