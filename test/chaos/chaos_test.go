package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/test/cluster"
)

// summary is printed as the last lines, after go test's own.
var summary string

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	code := m.Run()
	if summary != "" {
		fmt.Println(summary)
	}
	os.Exit(code)
}

func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes, which -short leaves out")
	}
	seed, start := readSeed(t), time.Now()
	ctx, cancel := untilInterrupted(readSize(t).limit)
	defer cancel()
	fmt.Printf("the random moments come from %s=%d\n", seedVariable, seed)
	s := &suite{
		t: t, ctx: ctx, size: readSize(t), random: rand.New(rand.NewPCG(seed, 1)), seen: map[*stream]uint64{},
	}
	rep := &report{Seed: seed, Quick: isQuick()}
	defer func() { // also when the test ends early
		rep.Seconds, rep.Results = time.Since(start).Seconds(), s.results
		s.finish(rep)
	}()
	s.scene = newScene(t)
	s.agents, s.churn = newAgents(t, s.scene), newChurn(s.Client, rand.New(rand.NewPCG(seed, 2)))
	s.agents.lackExtension(t)
	t.Cleanup(s.churn.stop)
	t.Cleanup(s.closeConnections)
	s.requireOpen("before there are agents")
	s.close()

	s.starts()
	s.whileChanging(kindKill, s.kills)
	s.whileChanging(kindUpgrade, s.upgrades)
	s.whileChanging(kindIPTables, s.iptablesFaults)
	s.whileChanging(kindFrozen, s.freezes)
	s.whileChanging(kindAPI, s.apiFaults)
	s.awaitRecovery()
	s.manyPolicies()
	s.damages()
	s.flushes()
	s.foreignRules()

	s.controls()
	s.ended = true
}

// untilInterrupted returns a context that ends with the run's limit or a signal. A
// second signal ends the process at once.
func untilInterrupted(limit time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), limit, fmt.Errorf("it took longer than %s", limit))
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // The next signal is not caught any more.
	return ctx, cancel
}

// close starts the agents, creates the policies and waits until they are in force.
// From then on every probe counts.
//
// Servers are silent until the kernel tracks connections, which it does from the agent's
// first rules on. It takes the end that it sees first for the client.
func (s *suite) close() {
	s.t.Helper()
	s.wire.remove(s.answers...)
	for i := range s.Nodes {
		s.agents.start(s.t, i)
	}
	s.AwaitAgents(s.t)
	for _, n := range s.Nodes {
		s.AwaitCondition(s.t, n, v1alpha1.NodeConditionPodStartGuarded, v1alpha1.NodeReasonRuntimeConnected)
	}
	s.awaitProbes()
	s.wire.resume(s.answers...)
	s.apply(s.t)
	s.sleep(cutWithin)
	s.lost, s.seen = s.disturbance(), s.positions()
	s.make(fault{kind: kindControl, name: "nothing", do: func(*attempt) { s.sleep(2 * time.Second) }})
	last := s.results[len(s.results)-1]
	require.Zero(s.t, last.Leaked+last.Lost+last.Darkened, "the rules aren't in force to begin with")
}

// awaitProbes waits until every stream of a client has sent some more probes.
func (s *suite) awaitProbes() {
	s.t.Helper()
	const some = 10
	for st, before := range s.positions() {
		if !slices.Contains(s.answers, st) {
			s.eventually(settleWithin, func() bool { return st.position() >= before+some }, "%s: no probes", st.name)
		}
	}
}

// finish sums up, prints and writes what there is.
func (s *suite) finish(rep *report) {
	if s.scene == nil {
		return
	}
	rep.Skipped = s.wire.skipped.Load()
	rep.sum()
	for _, r := range rep.Results {
		if r.Leaked+r.Lost+r.Darkened > 0 {
			s.t.Errorf("%s: %d leaked, %d lost, %d darkened: %v", r.Name, r.Leaked, r.Lost, r.Darkened, r.Streams)
		}
	}
	rep.Passed = s.ended && !s.t.Failed()
	if dir := os.Getenv(resultsVariable); dir != "" {
		if err := rep.write(dir); err != nil {
			s.t.Error(err)
		}
	}
	summary = fmt.Sprintf("newcomers had their network after %.1fs at most beside an agent; %.1fs without network while there was none\n", rep.Network, rep.Absent)
	summary += fmt.Sprintf("%d faults, %d leaked, %d lost, %d darkened", rep.Faults, rep.Leaked, rep.Lost, rep.Darkened)
	if !s.ended {
		summary += "; it ended early"
	}
}

func (s *suite) closeConnections() {
	for _, closer := range s.closers {
		closer()
	}
}

// try runs a program in a node that may fail.
func (s *suite) try(n *cluster.Node, program string, args ...string) {
	_ = n.Do(func() error { return errors.Join(exec.Command(program, args...).Run()) })
}
