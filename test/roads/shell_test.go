package roads

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/hack/localcluster"
)

// shell runs what users type and writes it down with what it printed. Its methods may
// be used at the same time.
type shell struct {
	ctx   context.Context
	t     *testing.T
	begun time.Time

	mu  sync.Mutex
	log io.Writer
}

// say writes a line into the log.
func (s *shell) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = fmt.Fprintf(s.log, "[%5.1f s] %s\n", time.Since(s.begun).Seconds(), fmt.Sprintf(format, args...))
}

// do runs a command that has to succeed, and returns what it printed.
func (s *shell) do(command ...string) string {
	s.t.Helper()
	return s.input("", command...)
}

// input is do for a command that reads.
func (s *shell) input(text string, command ...string) string {
	s.t.Helper()
	out, err := s.run(text, command)
	require.NoErrorf(s.t, err, "%s\n%s", localcluster.Typed(command), out)
	return out
}

// refused runs a command that has to fail, and returns what it printed.
func (s *shell) refused(command ...string) string {
	s.t.Helper()
	out, err := s.run("", command)
	require.Errorf(s.t, err, "%s\n%s", localcluster.Typed(command), out)
	return out
}

// try runs a command that may fail.
func (s *shell) try(command ...string) (string, error) { return s.run("", command) }

// looksOnly are words of commands whose output is read by the suite, again and again.
var looksOnly = []string{" get ", "-save"}

func (s *shell) run(input string, command []string) (string, error) {
	cmd := localcluster.Command(s.ctx, command)
	if input != "" {
		cmd.Stdin = strings.NewReader(input)
	}
	out, err := cmd.CombinedOutput()
	typed := localcluster.Typed(command)
	for _, word := range looksOnly {
		if err == nil && strings.Contains(typed, word) {
			return string(out), nil
		}
	}
	s.say("$ %s\n%s", typed, strings.TrimSpace(string(out)))
	if err != nil {
		s.say("  -> %v", err)
	}
	return string(out), err
}

// inParallel calls a function for each of some things at the same time.
func inParallel[T any](things []T, do func(T)) {
	var all sync.WaitGroup
	for _, thing := range things {
		all.Go(func() { do(thing) })
	}
	all.Wait()
}
