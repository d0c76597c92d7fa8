//go:build linux

package machine

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// RunForeground runs a command in all of the machine's namespaces for the user and
// returns how it ended. It can't become the command: only a child can be in another PID
// namespace.
func (m Machine) RunForeground(path string, args []string) (*os.ProcessState, error) {
	cmd := exec.Command(path)
	cmd.Args = args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if wd, err := os.Getwd(); err == nil {
		cmd.Dir = wd // entering a mount namespace leaves the working folder
	}
	// The terminal sends its signals to the command, too; a kill comes only here.
	// (Ignoring SIGINT instead would make the command ignore it as well.)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGHUP)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT, syscall.SIGQUIT)
	err := m.Inside(func() error {
		if err := cmd.Start(); err != nil {
			return fmt.Errorf("starting the command: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s)
		}
	}()
	if err := cmd.Wait(); cmd.ProcessState == nil {
		return nil, fmt.Errorf("waiting for the command: %w", err)
	}
	return cmd.ProcessState, nil
}
