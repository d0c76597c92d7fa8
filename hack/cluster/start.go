//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// daemon is a process of a machine that "up" starts and leaves running.
type daemon struct {
	name string
	path string
	args []string
	env  []string
}

// start starts the daemon inside of the machine, with its output in a log file.
func (m machine) start(d daemon) error {
	if err := os.MkdirAll(m.path("logs"), 0o755); err != nil {
		return fmt.Errorf("making the log folder: %w", err)
	}
	log, err := os.OpenFile(m.logFile(d.name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("opening the log of %s: %w", d.name, err)
	}
	defer func() { _ = log.Close() }()
	cmd := exec.Command(d.path, d.args...)
	cmd.Dir = "/"
	cmd.Env = append([]string{"PATH=" + daemonPath(d.path), "HOME=/root"}, d.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return m.startRecorded(d.name, cmd, m.inside)
}

// daemonPath lets a daemon find its companions beside itself and the system's
// tools, whatever the PATH of the user is.
func daemonPath(path string) string {
	return filepath.Dir(path) + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// startRecorded starts cmd in the namespaces that enter leads to and records it.
// A process that can't be recorded is ended again: "down" would miss it.
func (m machine) startRecorded(name string, cmd *exec.Cmd, enter func(func() error) error) error {
	group, err := m.openDaemonGroup()
	if err != nil {
		return err
	}
	if group != nil {
		defer func() { _ = group.Close() }()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(group.Fd())
	}
	if err := enter(cmd.Start); err != nil {
		return fmt.Errorf("starting %s of %s: %w", name, m.name, err)
	}
	if err := recordProcess(m, name, cmd.Process.Pid); err != nil {
		_ = cmd.Process.Kill()
		return err
	}
	return nil
}

// await polls check until it succeeds. If the daemon ends meanwhile or time is
// up, the error names its log and holds its last lines.
func (m machine) await(daemon, what string, limit time.Duration, check func() (bool, error)) error {
	err := waitUntil(limit, func() (bool, error) {
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

func (m machine) withLog(daemon string, err error) error {
	log, readErr := os.ReadFile(m.logFile(daemon))
	if readErr != nil {
		return err
	}
	return fmt.Errorf("%w\n--- the end of %s:\n%s", err, m.logFile(daemon), lastLines(string(log), 15))
}

// runs says whether the recorded daemon is alive.
func (m machine) runs(daemon string) bool {
	data, err := os.ReadFile(filepath.Join(pidDir, m.name, daemon))
	if err != nil {
		return false
	}
	p, err := parseProcess(string(data))
	return err == nil && p.alive()
}

// stop ends a daemon and forgets it: it isn't dead by accident.
func (m machine) stop(daemon string) error {
	file := filepath.Join(pidDir, m.name, daemon)
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
	p.machine, p.name = m.name, daemon
	if err := p.kill(); err != nil {
		return err
	}
	if err := waitGone([]process{p}); err != nil {
		return fmt.Errorf("waiting for the end of %s: %w", daemon, err)
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("removing a process record: %w", err)
	}
	return nil
}
