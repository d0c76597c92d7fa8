package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/moat-dev/moat/hack/localcluster"
)

// shell runs commands and shows them as a user would type them. Its first
// failure is kept in err, and nothing is run after it.
type shell struct {
	ctx   context.Context
	begun time.Time
	err   error
}

func newShell(ctx context.Context) (*shell, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("the cluster needs root for its network namespaces: use sudo")
	}
	if _, err := os.Stat(filepath.Join("hack", "demo", "manifests")); err != nil {
		return nil, fmt.Errorf("finding the manifests: %w; run this at the root of the checkout", err)
	}
	s := &shell{ctx: ctx, begun: time.Now()}
	fmt.Println("Compiling the cluster program")
	s.visibly(localcluster.Compile()...)
	return s, s.err
}

// heading starts a part of the demonstration.
func (s *shell) heading(title string) {
	if s.err == nil {
		fmt.Printf("\n=== %s   [%.0f s]\n", title, time.Since(s.begun).Seconds())
	}
}

func (s *shell) say(format string, args ...any) {
	if s.err == nil {
		fmt.Printf(format+"\n", args...)
	}
}

// show runs a command after printing it, and its output as it comes.
func (s *shell) show(command ...string) {
	if s.err != nil {
		return
	}
	fmt.Println("\n$ " + localcluster.Typed(command))
	s.visibly(command...)
}

// visibly runs a command with the demonstration's own output, and breaks its
// silence.
func (s *shell) visibly(command ...string) {
	cmd := s.command(command)
	out := &heartbeat{to: os.Stdout, timer: time.NewTimer(heartbeatAfter)}
	cmd.Stdout, cmd.Stderr = out, out
	done := make(chan struct{})
	go out.beat(done)
	err := cmd.Run()
	close(done)
	s.fail(command, err, "")
}

// heartbeatAfter is how long a command is silent before the demonstration says
// that it still runs.
const heartbeatAfter = 10 * time.Second

// heartbeat passes output on and knows how long there was none.
type heartbeat struct {
	to    io.Writer
	timer *time.Timer
}

func (h *heartbeat) Write(p []byte) (int, error) {
	h.timer.Reset(heartbeatAfter)
	return h.to.Write(p)
}

func (h *heartbeat) beat(done <-chan struct{}) {
	begun := time.Now()
	for {
		select {
		case <-done:
			return
		case <-h.timer.C:
			fmt.Printf("  ... still running, for %.0f s\n", time.Since(begun).Seconds())
			h.timer.Reset(heartbeatAfter)
		}
	}
}

// output runs a command silently and returns what it printed.
func (s *shell) output(command ...string) string {
	if s.err != nil {
		return ""
	}
	out, err := s.command(command).CombinedOutput()
	s.fail(command, err, string(out))
	return strings.TrimSpace(string(out))
}

// interrupted says whether the user has ended the demonstration. What was seen
// since then means nothing.
func (s *shell) interrupted() bool {
	if s.ctx.Err() == nil {
		return false
	}
	s.err = errInterrupted
	return true
}

var errInterrupted = errors.New("interrupted")

func (s *shell) fail(command []string, err error, output string) {
	switch {
	case s.err != nil || err == nil:
	case s.interrupted():
	default:
		s.err = fmt.Errorf("running %s: %w\n%s", localcluster.Typed(command), err, output)
	}
}

// command prepares what a user types.
func (s *shell) command(args []string) *exec.Cmd { return localcluster.Command(s.ctx, args) }
