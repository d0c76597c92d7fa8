package main

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/moat-dev/moat/hack/localcluster"
)

// outcome is the fate of a probe's packets.
type outcome string

const (
	answered outcome = "answers"
	blocked  outcome = "blocked"
)

// probeLimit bounds a probe that hangs; those that are blocked end by
// themselves within about a second.
const probeLimit = 15 * time.Second

// probe sends real packets by a command that a user could type.
type probe struct {
	what    string
	command []string
	judge   func(output string) (outcome, bool)
}

// expectation is a probe and what shall become of its packets.
type expectation struct {
	probe
	want outcome
}

func (p probe) answers() expectation   { return expectation{p, answered} }
func (p probe) isBlocked() expectation { return expectation{p, blocked} }

// ping sends two echo requests from a pod, given as "name" or "namespace/name".
func ping(pod, to, toIP string) probe {
	return probe{
		what:    fmt.Sprintf("ping %s -> %s", pod, to),
		command: append(inPod(pod), "ping", "-c", "2", "-i", "0.2", "-W", "1", toIP),
		judge:   judgePing,
	}
}

// pingFromOutside pings from one of the addresses of the host outside.
func pingFromOutside(from, to, toIP string) probe {
	return probe{
		what:    fmt.Sprintf("ping %s -> %s", from, to),
		command: []string{"exec", "world", "--", "ping", "-I", from, "-c", "2", "-i", "0.2", "-W", "1", toIP},
		judge:   judgePing,
	}
}

// get fetches a page over TCP. wget's own time limit crashes in the busybox of
// Debian 12.
func get(pod, to, toIP string, port int) probe {
	return probe{
		what:    fmt.Sprintf("TCP %d %s -> %s", port, pod, to),
		command: append(inPod(pod), "timeout", "2", "wget", "-q", "-O", "-", fmt.Sprintf("http://%s:%d/", toIP, port)),
		judge:   judgeGet,
	}
}

func inPod(pod string) []string {
	if namespace, name, found := strings.Cut(pod, "/"); found {
		return []string{"kubectl", "exec", "-n", namespace, name, "--"}
	}
	return []string{"kubectl", "exec", pod, "--"}
}

var lossPattern = regexp.MustCompile(`(\d+)% packet loss`)

// judgePing knows a loss of all and of none. Anything between is neither, and so
// is an error that the network sends back: Moat drops without a word.
func judgePing(output string) (outcome, bool) {
	loss := lossPattern.FindStringSubmatch(output)
	if loss == nil || strings.Contains(output, " errors,") {
		return "", false
	}
	switch loss[1] {
	case "0":
		return answered, true
	case "100":
		return blocked, true
	}
	return "", false
}

// endedByTimeout is what kubectl says when "timeout" had to end a command.
const endedByTimeout = "exit code 143"

// judgeGet takes only silence for blocked: a refusal would be an answer.
func judgeGet(output string) (outcome, bool) {
	switch {
	case strings.Contains(output, "Welcome to nginx!"), strings.Contains(output, "Hello from outside"):
		return answered, true
	case strings.Contains(output, endedByTimeout):
		return blocked, true
	}
	return "", false
}

// evidence is the line of the output that tells most.
func evidence(output string) string {
	for line := range strings.Lines(output) {
		if lossPattern.MatchString(line) {
			return strings.TrimSpace(line)
		}
	}
	first, _, _ := strings.Cut(strings.TrimSpace(output), "\n")
	return first
}

// result is what became of one probe.
type result struct {
	seen     string
	evidence string
}

// check runs the probes at the same time, shows each with its outcome, and
// enters them into the table.
func (d *demo) check(expectations ...expectation) {
	if d.err != nil {
		return
	}
	results := make([]result, len(expectations))
	var wg sync.WaitGroup
	for i, e := range expectations {
		wg.Go(func() { results[i] = d.try(e.probe) })
	}
	wg.Wait()
	if d.interrupted() {
		return
	}
	rows := make([]row, len(expectations))
	for i, e := range expectations {
		verdict := "as expected"
		if results[i].seen != string(e.want) {
			verdict = fmt.Sprintf("BUT EXPECTED: %s", e.want)
		}
		d.say("\n$ %s\n%s\n  -> %s, %s", localcluster.Typed(e.command), results[i].evidence, results[i].seen, verdict)
		rows[i] = row{what: e.what, want: string(e.want), seen: results[i].seen}
	}
	d.enter(rows...)
}

func (d *demo) try(p probe) result {
	ctx, cancel := context.WithTimeout(d.ctx, probeLimit)
	defer cancel()
	bounded := shell{ctx: ctx}
	output, err := bounded.command(p.command).CombinedOutput()
	seen, known := p.judge(string(output))
	switch {
	case known:
		return result{string(seen), evidence(string(output))}
	case err != nil:
		return result{"no result: " + err.Error(), string(output)}
	}
	return result{"neither answer nor silence", string(output)}
}
