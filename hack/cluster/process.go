//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a recorded process. A pid alone may be another's by now; with the
// time of its start it can't be.
type process struct {
	machine   string
	name      string
	pid       int
	startTime uint64 // in clock ticks since boot, as in /proc/PID/stat
}

func (p process) String() string { return p.name + " of " + p.machine }

// pidDir holds one file for each process: MACHINE/NAME, "PID STARTTIME".
var pidDir = filepath.Join(stateDir, "pids")

// recordProcess notes a process that has just been started.
func recordProcess(m machine, name string, pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return fmt.Errorf("recording %s of %s: %w", name, m.name, err)
	}
	return writeFile(filepath.Join(pidDir, m.name, name), fmt.Sprintf("%d %d\n", pid, start))
}

// recordedProcesses lists what was started, in the order of the file names.
// Files that don't hold a record are passed over.
func recordedProcesses() ([]process, error) {
	files, err := filepath.Glob(filepath.Join(pidDir, "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var list []process
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading a process record: %w", err)
		}
		p, err := parseProcess(string(data))
		if err != nil {
			continue
		}
		p.machine, p.name = filepath.Base(filepath.Dir(file)), filepath.Base(file)
		list = append(list, p)
	}
	return list, nil
}

func parseProcess(text string) (process, error) {
	pid, start, ok := strings.Cut(strings.TrimSpace(text), " ")
	if !ok {
		return process{}, fmt.Errorf("parsing process record %q: want PID STARTTIME", text)
	}
	var p process
	var err error
	if p.pid, err = strconv.Atoi(pid); err != nil || p.pid < 2 {
		return process{}, fmt.Errorf("parsing process record %q: no pid", text)
	}
	if p.startTime, err = strconv.ParseUint(start, 10, 64); err != nil {
		return process{}, fmt.Errorf("parsing process record %q: no start time", text)
	}
	return p, nil
}

// alive says whether this very process still runs; a zombie does not.
func (p process) alive() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return false
	}
	state, start, err := parseStat(string(stat))
	return err == nil && start == p.startTime && state != "Z"
}

// kill ends the process if it still is the one that was recorded.
func (p process) kill() error {
	if !p.alive() {
		return nil
	}
	if err := syscall.Kill(p.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing %s (process %d): %w", p, p.pid, err)
	}
	return nil
}

func startTime(pid int) (uint64, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("reading the start time of process %d: %w", pid, err)
	}
	_, start, err := parseStat(string(stat))
	return start, err
}

// parseStat reads the state and the start time, fields 3 and 22 of
// /proc/PID/stat (proc(5)). The name in field 2 may hold blanks and brackets.
func parseStat(stat string) (state string, start uint64, err error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return "", 0, fmt.Errorf("parsing process status %q: too few fields", stat)
	}
	start, err = strconv.ParseUint(fields[19], 10, 64)
	if err != nil {
		return "", 0, fmt.Errorf("parsing process status %q: %w", stat, err)
	}
	return fields[0], start, nil
}

// waitGone waits for processes to disappear from the process table.
func waitGone(processes []process) error {
	return waitUntil(10*time.Second, func() (bool, error) {
		for _, p := range processes {
			if p.alive() {
				return false, nil
			}
		}
		return true, nil
	})
}

// logFile is where the process writes, if it is a daemon.
func (p process) logFile() string { return machine{name: p.machine}.logFile(p.name) }

// hasEnded is the error that says so, with the end of the process's log.
func (p process) hasEnded() error {
	return machine{name: p.machine}.withLog(p.name, fmt.Errorf("%s has ended", p))
}

// deadProcesses lists the recorded processes that have ended.
func deadProcesses() ([]process, error) {
	processes, err := recordedProcesses()
	if err != nil {
		return nil, err
	}
	var dead []process
	for _, p := range processes {
		if !p.alive() {
			dead = append(dead, p)
		}
	}
	return dead, nil
}
