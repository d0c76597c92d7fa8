package bench

import (
	"fmt"
	"os"
	"time"
)

// silence is how long a step may take without a word.
const silence = 2 * time.Second

var started = time.Now()

// say prints one line of progress. The table alone goes to stdout.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(started).Seconds(), fmt.Sprintf(format, args...))
}

// during runs f. Where that takes longer it says what it is doing, and what detail,
// which may be nil, says of how far it is.
func during(what string, detail func() string, f func()) {
	done := make(chan struct{})
	go func() {
		for wait := silence; ; wait = min(2*wait, 8*silence) {
			select {
			case <-done:
				return
			case <-time.After(wait):
			}
			if detail != nil {
				say("%s: %s", what, detail())
			} else {
				say("%s", what)
			}
		}
	}()
	defer close(done)
	f()
}
