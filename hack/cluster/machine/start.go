//go:build linux

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/moat-dev/moat/hack/cluster/progress"
)

// Daemon is a process of a machine that "up" starts and leaves running.
type Daemon struct {
	Name string // under which it is recorded, and of its log
	Path string // of the program
	Args []string
	Env  []string // NAME=VALUE, beside PATH and HOME
}

// Start starts the daemon inside of the machine, with its output in a log file.
func (m Machine) Start(d Daemon) error {
	if err := os.MkdirAll(m.Path("logs"), 0o755); err != nil {
		return fmt.Errorf("making the log folder: %w", err)
	}
	log, err := os.OpenFile(m.LogFile(d.Name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", d.Name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(d.Path, d.Args...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + daemonPath(d.Path), "HOME=/root"}, d.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return m.startRecorded(d.Name, cmd, m.Inside)
}

// daemonPath lets a daemon find its companions beside itself and the system's
// tools, whatever the PATH of the user is.
func daemonPath(path string) string {
	return filepath.Dir(path) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// startRecorded starts cmd in the namespaces that enter leads to and records it.
// A process that can't be recorded is ended again: "down" would miss it.
func (m Machine) startRecorded(name string, cmd *exec.Cmd, enter func(func() error) error) error {
	group, err := m.openDaemonGroup()
	if err != nil {
		return err
	}
	if group != nil {
		defer func() { _ = group.Close() }()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	if err := enter(cmd.Start); err != nil {
		return fmt.Errorf("starting %s of %s: %w", name, m.Name, err)
	}
	if err := recordProcess(m, name, cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		return err
	}
	return nil
}

// Await polls check until it succeeds. If the daemon ends meanwhile or time is
// up, the error names its log and holds its last lines.
func (m Machine) Await(daemon, what string, limit time.Duration, check func() (bool, error)) error {
	err := progress.WaitUntil(limit, func() (bool, error) {
		if ok, err := check(); ok || err != nil {
			return ok, err
		}
		if !m.runs(daemon) {
			return false, fmt.Errorf("%s has ended", daemon)
		}
		return false, nil
	})
	if err != nil {
		return m.withLog(daemon, fmt.Errorf("waiting for %s: %w", what, err))
	}
	return nil
}

func (m Machine) withLog(daemon string, err error) error {
	log, readErr := os.ReadFile(m.LogFile(daemon))
	if readErr != nil {
		return err
	}
	return fmt.Errorf("%w\n--- the end of %s:\n%s", err, m.LogFile(daemon), progress.LastLines(string(log), 15))
}

// runs says whether the recorded daemon is alive.
func (m Machine) runs(daemon string) bool {
	data, err := os.ReadFile(filepath.Join(pidDir, m.Name, daemon))
	if err != nil {
		return false
	}
	p, err := parseProcess(string(data))
	return err == nil && p.Alive()
}

// Stop ends a daemon and forgets it: it isn't dead by accident.
func (m Machine) Stop(daemon string) error {
	file := filepath.Join(pidDir, m.Name, daemon)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading a process record: %w", err)
	}
	p, err := parseProcess(string(data))
	if err != nil {
		return err
	}
	p.Machine, p.Name = m.Name, daemon
	if err := p.kill(); err != nil {
		return err
	}
	if err := waitGone([]Process{p}); err != nil {
		return fmt.Errorf("waiting for the end of %s: %w", daemon, err)
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("removing a process record: %w", err)
	}
	return nil
}
