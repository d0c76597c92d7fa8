package roads

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moat-dev/moat/hack/localcluster"
)

// run is one road as it is played.
type run struct {
	*scene
	road   road
	at     span
	faults []string
}

// result is what became of a road.
type result struct {
	leaked, lost int
	settled      time.Duration // until the nodes were as they shall be; negative: they never were
	network      time.Duration // until the last new pod had its network
	took         time.Duration
	faults       []string
}

// leaving notes that the next command takes Moat away: from here on closed pods may be
// open.
func (r *run) leaving() { r.at.left = time.Now() }

// check notes a fault where something isn't so.
func (r *run) check(so bool, format string, args ...any) {
	if !so {
		r.fault(format, args...)
	}
}

func (r *run) fault(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.faults = append(r.faults, text)
	r.say("FAULT: %s", text)
}

// travel plays a road: it installs what the road begins with, pings, does what the road
// does, waits until the nodes are as they shall be, and judges every ping.
//
// A command that fails ends the road; res is filled all the same.
func (s *scene) travel(t *testing.T, road road, log io.Writer, res *result) {
	scene := *s
	scene.shell = &shell{ctx: s.ctx, t: t, log: log, begun: time.Now()}
	r := &run{scene: &scene, road: road}
	defer func() {
		res.took = time.Since(scene.begun)
		r.check(!t.Failed(), "it didn't come to its end")
		if res.faults = r.faults; len(res.faults) > 0 {
			r.diagnose()
		}
	}()
	r.removeNewPods()
	r.provide(road.from)

	streams := r.streams()
	end := r.ping(streams)
	defer end()
	r.awaitNodes(streams, road.outcome.before, glance)
	r.say("the road begins: %s", road.name)
	r.at.begun = time.Now()
	r.startNewPods("during")
	road.play(r)
	res.settled = r.awaitNodes(streams, road.outcome.after, max(road.watch, glance))
	r.startNewPods("after")
	res.network = r.awaitNewPods()
	r.check(r.tainted() == "", "tainted in the end: %s", r.tainted())
	r.at.ended = time.Now().Add(-answersWithin)
	res.leaked, res.lost, r.faults = r.judge(streams)
	r.removeNewPods()
	if len(r.faults) == 0 && road.outcome.after(chosenNode) {
		*r.standing = road.leaves
	}
}

// judge adds what pings say to the faults.
func (r *run) judge(streams []*stream) (leaked, lost int, faults []string) {
	leaked, lost, faults = verdicts(streams, r.road.outcome, r.at)
	for _, fault := range faults {
		r.say("FAULT: %s", fault)
	}
	return leaked, lost, append(r.faults, faults...)
}

// awaitNodes waits until rules stand on those nodes alone and all pings fare so, and
// then looks on whether that lasts. It returns how long it took.
func (r *run) awaitNodes(streams []*stream, stand places, watch time.Duration) time.Duration {
	begun := time.Now()
	var wrong []string
	for time.Since(begun) < settlesWithin {
		if wrong = r.unsettled(streams, stand); len(wrong) == 0 {
			took := time.Since(begun)
			r.watchNodes(streams, stand, watch)
			return took
		}
		r.pause(500 * time.Millisecond)
	}
	r.fault("after %s: %s", settlesWithin, strings.Join(wrong, "; "))
	return -1
}

// watchNodes looks on for a while.
func (r *run) watchNodes(streams []*stream, stand places, watch time.Duration) {
	for begun := time.Now(); time.Since(begun) < watch; r.pause(500 * time.Millisecond) {
		if wrong := r.unsettled(streams, stand); len(wrong) > 0 {
			r.fault("it didn't last: %.0f s later %s", time.Since(begun).Seconds(), strings.Join(wrong, "; "))
			return
		}
	}
}

// unsettled says what of the nodes and pings isn't as it shall be.
func (r *run) unsettled(streams []*stream, stand places) []string {
	var wrong []string
	traces := r.traces()
	for _, node := range nodes {
		count := strings.Count(traces[node], "\n")
		switch {
		case stand(node) && count == 0:
			wrong = append(wrong, node+" has no rules of Moat")
		case !stand(node) && count > 0:
			wrong = append(wrong, fmt.Sprintf("%s has %d lines of Moat", node, count))
		}
	}
	now := time.Now()
	for _, st := range streams {
		if what := settled(st, stand, now); what != "" {
			wrong = append(wrong, what)
		}
	}
	return wrong
}

// pause waits, and ends the road when the suite is interrupted.
func (r *run) pause(d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.ctx.Done():
		r.t.Fatal("stopped")
	}
}

// diagnose writes into the log what is needed to find out why a road went wrong.
func (r *run) diagnose() {
	commands := [][]string{
		{"kubectl", "describe", "nodes"},
		{"kubectl", "-n", systemNamespace, "get", "all,configmaps,events", "-o", "wide"},
		{"kubectl", "describe", "nodeenforcements"},
		{"kubectl", "-n", roadsNamespace, "describe", "pods"},
		{"kubectl", "-n", systemNamespace, "logs", "deployment/moat-operator", "--tail=80"},
		{"kubectl", "-n", systemNamespace, "logs", "-l", "app.kubernetes.io/component=agent", "--prefix", "--tail=40"},
		{"kubectl", "-n", systemNamespace, "logs", "-l", "app.kubernetes.io/component=agent", "--prefix", "--tail=40", "--previous"},
	}
	for _, node := range nodes {
		commands = append(commands, localcluster.TracesCommand(node))
	}
	for _, command := range commands {
		out, err := localcluster.Command(r.ctx, command).CombinedOutput()
		r.say("# %s (%v)\n%s", localcluster.Typed(command), err, out)
	}
}

// foreign returns those of the names that are no node of the cluster.
func foreign(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return slices.Contains(nodes, name) || name == "" })
}
