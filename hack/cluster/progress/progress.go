//go:build linux

package progress

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// heartbeat is how long a running step stays silent at most.
const heartbeat = 10 * time.Second

var (
	started    = time.Now()
	progressMu sync.Mutex
)

// Say prints one line of progress with the time since the program started.
// Progress goes to stderr: stdout is for what a caller asked to be printed.
func Say(format string, args ...any) {
	progressMu.Lock()
	defer progressMu.Unlock()
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
}

// During runs f and repeats what it is doing for as long as it takes. detail
// may be nil; else it is asked for a word on how far f has come.
func During(what string, detail func() string, f func() error) error {
	begun, done := time.Now(), make(chan struct{})
	go func() {
		tick := time.NewTicker(heartbeat)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				Say("still %s, %s so far%s", what, time.Since(begun).Round(time.Second), describe(detail))
			}
		}
	}()
	defer close(done)
	Say("%s", what)
	return f()
}

func describe(detail func() string) string {
	if detail == nil {
		return ""
	}
	if text := detail(); text != "" {
		return ": " + text
	}
	return ""
}

// InParallel runs f for every item at once and returns the first error in the
// items' order, after all have ended.
func InParallel[T any](items []T, f func(T) error) error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = f(item) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// WaitUntil polls check every 100 ms until it says true, fails, or time is up.
func WaitUntil(limit time.Duration, check func() (bool, error)) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		ok, err := check()
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no answer within %s", limit)
		}
	}
}

// LastLines returns the last n lines of text, without its final newline.
func LastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
