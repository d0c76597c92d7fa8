package main

import (
	"bufio"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

const (
	// inForceWithin is what a change may take, from kubectl's answer to the packet, on
	// a machine that runs the whole cluster, and patience is how long the demonstration
	// waits before it says that nothing happened.
	inForceWithin = 2 * time.Second
	patience      = 5 * time.Second

	// pingTimeout is how long a ping of the watcher waits for its answer; what
	// is seen to be blocked was blocked this much earlier.
	pingTimeout = time.Second
)

// watchScript sends a ping of its own every tenth of a second and says of each
// how it went. It ends once it has seen the outcome that is waited for, or after
// ten seconds.
const watchScript = `done=/tmp/watched-$$
look() {
  if ping -c 1 -W 1 %[1]s >/dev/null; then seen=answers; else seen=blocked; fi
  echo $seen
  if [ $seen = %[2]s ]; then touch $done; fi
}
for i in $(seq 100); do
  look &
  [ -e $done ] && exit
  sleep 0.1
done`

// sighting is what one ping of the watcher saw, and when.
type sighting struct {
	outcome outcome
	at      time.Time
}

// timeChange makes a change and measures how long it takes until pings from pod
// to db fare as wanted. They are sent from before the change on.
func (d *demo) timeChange(pod string, want outcome, change func()) {
	if d.err != nil {
		return
	}
	script := fmt.Sprintf(watchScript, d.dbIP, want)
	cmd := d.command(append(inPod(pod), "sh", "-c", script))
	sightings, err := startWatching(cmd)
	if err != nil {
		d.fail(cmd.Args, err, "")
		return
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()

	// The first ping shows that the watcher watches, and from which state on.
	first, ok := <-sightings
	switch {
	case d.interrupted():
		return
	case !ok || first.outcome == want:
		d.enterTime("no change seen: it was so before")
		return
	}
	change()
	seen := firstSight(sightings, want, time.Now())
	if !d.interrupted() {
		d.enterTime(seen)
	}
}

func startWatching(cmd *exec.Cmd) (<-chan sighting, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	sightings := make(chan sighting, 1000)
	go func() {
		defer close(sightings)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			seen := sighting{outcome(strings.TrimSpace(lines.Text())), time.Now()}
			if seen.outcome == blocked {
				seen.at = seen.at.Add(-pingTimeout)
			}
			sightings <- seen
		}
	}()
	return sightings, nil
}

// firstSight says how long after the change the wanted outcome was seen first.
func firstSight(sightings <-chan sighting, want outcome, changed time.Time) string {
	deadline := time.After(patience)
	for {
		select {
		case seen, ok := <-sightings:
			if !ok {
				return "the watcher ended early"
			}
			if seen.outcome == want {
				return took(max(0, seen.at.Sub(changed)))
			}
		case <-deadline:
			return fmt.Sprintf("not within %s", patience)
		}
	}
}

// took says whether the promise is kept.
func took(elapsed time.Duration) string {
	if elapsed <= inForceWithin {
		return fmt.Sprintf("%s (%.1f s)", inTime, elapsed.Seconds())
	}
	return fmt.Sprintf("after %.1f s", elapsed.Seconds())
}

const inTime = "within 2 s"

func (d *demo) enterTime(seen string) {
	d.say("  -> in force %s after the change", seen)
	d.enter(row{what: "in force", want: inTime, seen: seen})
}
