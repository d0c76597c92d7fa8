//go:build linux

package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/moat-dev/moat/hack/cluster/files"
	"github.com/moat-dev/moat/hack/cluster/progress"
)

// Process is a recorded process. A pid alone may be another's by now; with the
// time of its start it can't be.
type Process struct {
	Machine   string
	Name      string
	PID       int
	startTime uint64 // in clock ticks since boot, as in /proc/PID/stat
}

func (p Process) String() string { return p.Name + " of " + p.Machine }

// pidDir holds one file for each process: MACHINE/NAME, "PID STARTTIME".
var pidDir = filepath.Join(StateDir, "pids")

// recordProcess notes a process that has just been started.
func recordProcess(m Machine, name string, pid int) error {
	start, err := startTime(pid)
	if err != nil {
		return fmt.Errorf("recording %s of %s: %w", name, m.Name, err)
	}
	return files.WriteFile(filepath.Join(pidDir, m.Name, name), fmt.Sprintf("%d %d\n", pid, start))
}

// RecordedProcesses lists what was started, in the order of the file names.
// Files that don't hold a record are passed over.
func RecordedProcesses() ([]Process, error) {
	records, err := filepath.Glob(filepath.Join(pidDir, "*", "*"))
	if err != nil {
		return nil, fmt.Errorf("listing processes: %w", err)
	}
	var list []Process
	for _, file := range records {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("reading a process record: %w", err)
		}
		p, err := parseProcess(string(data))
		if err != nil {
			continue
		}
		p.Machine, p.Name = filepath.Base(filepath.Dir(file)), filepath.Base(file)
		list = append(list, p)
	}
	return list, nil
}

func parseProcess(text string) (Process, error) {
	pid, start, ok := strings.Cut(strings.TrimSpace(text), " ")
	if !ok {
		return Process{}, fmt.Errorf("parsing process record %q: want PID STARTTIME", text)
	}
	var p Process
	var err error
	if p.PID, err = strconv.Atoi(pid); err != nil || p.PID < 2 {
		return Process{}, fmt.Errorf("parsing process record %q: no pid", text)
	}
	if p.startTime, err = strconv.ParseUint(start, 10, 64); err != nil {
		return Process{}, fmt.Errorf("parsing process record %q: no start time", text)
	}
	return p, nil
}

// Alive says whether this very process still runs; a zombie does not.
func (p Process) Alive() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.PID))
	if err != nil {
		return false
	}
	state, start, err := parseStat(string(stat))
	return err == nil && start == p.startTime && state != "Z"
}

// kill ends the process if it still is the one that was recorded.
func (p Process) kill() error {
	if !p.Alive() {
		return nil
	}
	if err := syscall.Kill(p.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing %s (process %d): %w", p, p.PID, err)
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
func waitGone(processes []Process) error {
	return progress.WaitUntil(10*time.Second, func() (bool, error) {
		for _, p := range processes {
			if p.Alive() {
				return false, nil
			}
		}
		return true, nil
	})
}

// LogFile is where the process writes, if it is a daemon.
func (p Process) LogFile() string { return Machine{Name: p.Machine}.LogFile(p.Name) }

// HasEnded is the error that says so, with the end of the process's log.
func (p Process) HasEnded() error {
	return Machine{Name: p.Machine}.withLog(p.Name, fmt.Errorf("%s has ended", p))
}

// DeadProcesses lists the recorded processes that have ended.
func DeadProcesses() ([]Process, error) {
	processes, err := RecordedProcesses()
	if err != nil {
		return nil, err
	}
	var dead []Process
	for _, p := range processes {
		if !p.Alive() {
			dead = append(dead, p)
		}
	}
	return dead, nil
}
