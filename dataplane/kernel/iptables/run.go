package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Error is a program that failed.
type Error struct {
	Program string
	Stderr  string
	Err     error
}

func (e *Error) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("running %s: %v", e.Program, e.Err)
	}
	return fmt.Sprintf("running %s: %v: %s", e.Program, e.Err, e.Stderr)
}

func (e *Error) Unwrap() error { return e.Err }

// IsFailure reports whether the error is that of a program that ran and failed.
func IsFailure(err error) bool {
	var failed *Error
	return errors.As(err, &failed)
}

// IsPermission reports whether a program was not allowed to touch the kernel's
// tables: the agent lacks CAP_NET_ADMIN in the node's network namespace.
func IsPermission(err error) bool {
	return anyFailure(err, func(e *Error) bool { return e.isPermission() })
}

// IsLock reports whether a program didn't get the xtables lock: other programs held it
// for too long, or its file can't be opened.
func IsLock(err error) bool {
	return anyFailure(err, func(e *Error) bool { return e.isLock() })
}

// IsRefusal reports whether a program ran to its end and refused its input. Permission errors,
// lock timeouts and kills are not refusals of the input.
func IsRefusal(err error) bool {
	return anyFailure(err, func(e *Error) bool {
		var exit *exec.ExitError
		return errors.As(e.Err, &exit) && exit.Exited() && !e.isPermission() && !e.isLock()
	})
}

// IsKilled reports whether a run of iptables-restore was killed, by its time limit or for
// lack of memory. It proves nothing about the rules: perhaps the node is busy.
func IsKilled(err error) bool {
	return anyFailure(err, func(e *Error) bool {
		var exit *exec.ExitError
		return strings.HasSuffix(e.Program, "-restore") && errors.As(e.Err, &exit) && !exit.Exited()
	})
}

func (e *Error) isPermission() bool {
	return !e.isLock() && (strings.Contains(e.Stderr, "Permission denied") || strings.Contains(e.Stderr, "you must be root"))
}

// isLock knows the messages of iptables/xshared.c.
func (e *Error) isLock() bool {
	return strings.Contains(e.Stderr, "holding the xtables lock") || strings.Contains(e.Stderr, "can't open lock file")
}

// anyFailure checks every Error of a tree of joined errors.
func anyFailure(err error, is func(*Error) bool) bool {
	if err == nil {
		return false
	}
	if failed, ok := err.(*Error); ok { //nolint:errorlint // walks over the tree by itself
		return is(failed)
	}
	switch wrapped := err.(type) { //nolint:errorlint // walks over the tree by itself
	case interface{ Unwrap() error }:
		return anyFailure(wrapped.Unwrap(), is)
	case interface{ Unwrap() []error }:
		for _, inner := range wrapped.Unwrap() {
			if anyFailure(inner, is) {
				return true
			}
		}
	}
	return false
}

// run runs a program and returns what it prints, also where it fails. A program that takes longer
// than the timeout is killed, with all processes that it started.
func run(ctx context.Context, timeout time.Duration, stdin, program string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killWait
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w after %s", err, timeout)
		}
		return stdout.String(), &Error{Program: program, Stderr: firstLines(stderr.String()), Err: err}
	}
	return stdout.String(), nil
}

// firstLines keeps an error message readable: a restore repeats itself.
func firstLines(text string) string {
	const most = 3
	lines := strings.SplitN(strings.TrimSpace(text), "\n", most+1)
	if len(lines) > most {
		lines = lines[:most]
	}
	return strings.Join(lines, "; ")
}
