//go:build linux

package main

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

func (l *buildLog) progress() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.lines) == 0 {
		return ""
	}
	return fmt.Sprintf("%d packages, now %s", len(l.lines), l.lines[len(l.lines)-1])
}

func (l *buildLog) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-20):], "\n")
}
