//go:build linux

package build

import (
	"fmt"
	"strings"
	"sync"
)

// buildLog takes what "go build -v" prints: a line for each package that it
// compiles, and what went wrong.
type buildLog struct {
	mu    sync.Mutex
	lines []string
}

func (l *buildLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, strings.Split(strings.TrimRight(string(p), "\n"), "\n")...)
	return len(p), nil
}

// progress says how many packages are compiled, and which line came last: a
// package, or a module that is being downloaded.
func (l *buildLog) progress() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		return ""
	}
	packages := 0
	for _, line := range l.lines {
		if !strings.HasPrefix(line, "go: ") {
			packages++
		}
	}
	return fmt.Sprintf("%d packages, last %s", packages, strings.TrimPrefix(l.lines[len(l.lines)-1], "go: "))
}

func (l *buildLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-20):], "\n")
}
