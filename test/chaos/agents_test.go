package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/test/cluster"
)

// Variables of the environment that name builds of cmd/moat, which differ in their
// version alone.
const (
	binaryVariable  = "MOAT_BINARY"
	upgradeVariable = "MOAT_UPGRADE"
)

// Bounds of what an agent may take on a busy machine.
const (
	readyWithin     = time.Minute
	recoveredWithin = time.Minute
)

// agents are those of all nodes. Each finds the programs of iptables in a folder of
// its own first, where the suite can replace them.
type agents struct {
	nodes    []*cluster.Node
	binaries []string // that there are
	running  []int    // which of them each node's agent is
	programs []string // the folders
	flags    [][]string
	env      [][]string // further variables of their environment

	now         func() time.Duration
	attendances []*attendance // of each node
}

func newAgents(t *testing.T, on *scene) agents {
	t.Helper()
	a := agents{nodes: on.Nodes, now: on.wire.now}
	for _, variable := range []string{binaryVariable, upgradeVariable} {
		binary := os.Getenv(variable)
		require.NotEmpty(t, binary, "%s is not set: it names a build of cmd/moat", variable)
		a.binaries = append(a.binaries, binary)
	}
	for i := range a.nodes {
		a.running = append(a.running, 0)
		a.attendances = append(a.attendances, &attendance{})
		a.env = append(a.env, nil)
		a.programs = append(a.programs, t.TempDir())
		a.flags = append(a.flags, []string{"--nri-socket=" + on.runtimes[i].socket, "--pod-start-guard=Auto"})
		a.restoreWorks(t, i)
	}
	return a
}

func (a *agents) start(t *testing.T, i int) {
	t.Helper()
	env := append([]string{"PATH=" + a.programs[i] + ":" + os.Getenv("PATH")}, a.env[i]...)
	a.nodes[i].StartAgentOf(t, a.binaries[a.running[i]], env, backends[i], a.flags[i]...)
	a.attendances[i].comes(a.now())
}

// upgrade stops an agent, does something, and starts the other build.
func (a *agents) upgrade(t *testing.T, i int, meanwhile func()) {
	t.Helper()
	a.attendances[i].goes(a.now())
	a.nodes[i].Agent.Stop(t)
	meanwhile()
	a.running[i] = 1 - a.running[i]
	a.start(t, i)
}

// stop stops all agents as a kubelet does.
func (a *agents) stop(t *testing.T) {
	t.Helper()
	for i, n := range a.nodes {
		a.attendances[i].goes(a.now())
		n.Agent.Stop(t)
	}
}

// freeze stops an agent in its tracks, and thaw lets it go on.
func (a *agents) freeze(t *testing.T, i int) {
	t.Helper()
	a.attendances[i].goes(a.now())
	require.NoError(t, syscall.Kill(a.nodes[i].Agent.Pid(), syscall.SIGSTOP))
}

func (a *agents) thaw(t *testing.T, i int) {
	t.Helper()
	require.NoError(t, syscall.Kill(a.nodes[i].Agent.Pid(), syscall.SIGCONT))
	a.attendances[i].comes(a.now())
}

func (a *agents) kill(t *testing.T, i int) {
	t.Helper()
	require.True(t, a.nodes[i].Agent.Running(), "the agent of %s ended by itself; its log is %s", a.nodes[i].Name, a.nodes[i].Agent.Log)
	a.attendances[i].goes(a.now())
	a.nodes[i].Agent.Kill(t)
}

// programs are a backend's iptables and ip6tables.
func programs(backend iptables.Backend) []string {
	var names []string
	for _, family := range cluster.Families {
		names = append(names, cluster.Program(backend, family))
	}
	return names
}

// restoreWorks makes a node's programs those of the machine.
func (a *agents) restoreWorks(t *testing.T, i int) {
	t.Helper()
	for _, program := range programs(backends[i]) {
		path, err := exec.LookPath(program + "-restore")
		require.NoError(t, err)
		replace(t, filepath.Join(a.programs[i], program+"-restore"), func(fresh string) error { return os.Symlink(path, fresh) })
	}
}

// restoreIs replaces a node's programs by a shell script.
func (a *agents) restoreIs(t *testing.T, i int, script string) {
	t.Helper()
	for _, program := range programs(backends[i]) {
		replace(t, filepath.Join(a.programs[i], program+"-restore"), func(fresh string) error {
			return os.WriteFile(fresh, []byte("#!/bin/sh\n"+script+"\n"), 0o755)
		})
	}
}

// replace replaces a file in one step.
func replace(t *testing.T, path string, write func(string) error) {
	t.Helper()
	fresh := path + ".new"
	require.NoError(t, write(fresh))
	require.NoError(t, os.Rename(fresh, path))
}

// holdLock takes the lock of a file until it is released, or the test's process ends.
func holdLock(t *testing.T, path string) (release func()) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	require.NoError(t, err)
	require.NoError(t, syscall.Flock(int(file.Fd()), syscall.LOCK_EX))
	return func() { _ = file.Close() }
}

// awaitReady waits until all agents are ready.
func (s *suite) awaitReady() {
	s.t.Helper()
	for _, n := range s.Nodes {
		s.eventually(readyWithin, func() bool { return n.Agent.Running() && n.AgentReady() }, "the agent of %s isn't ready; its log is %s", n.Name, n.Agent.Log)
	}
}

// awaitRestore waits until a node's agent runs a program that restores rules.
func (s *suite) awaitRestore(node int) {
	s.t.Helper()
	agent, parent := s.Nodes[node].Agent, fmt.Sprintf(" %d ", s.Nodes[node].Agent.Pid())
	changes := s.churn.count.Load()
	for end := time.Now().Add(readyWithin); ; s.sleep(time.Millisecond) {
		require.True(s.t, time.Now().Before(end) && agent.Running(), "the agent of %s restores nothing, with %d changes meanwhile, of which the last that failed did so with %v; its log is %s",
			s.Nodes[node].Name, s.churn.count.Load()-changes, s.churn.failed.Load(), agent.Log)
		stats, err := filepath.Glob("/proc/[0-9]*/stat")
		require.NoError(s.t, err)
		for _, stat := range stats {
			text, _ := os.ReadFile(stat) // It may have ended.
			// NUMBER (NAME) STATE PARENT …; a name is cut to 15 letters.
			_, rest, _ := strings.Cut(string(text), "(")
			name, rest, _ := strings.Cut(rest, ") ")
			if strings.Contains(name, "tables-") && strings.HasPrefix(rest[min(1, len(rest)):], parent) {
				return
			}
		}
	}
}

// awaitRecovery waits until all agents have put a change into the kernel that was
// made after the fault.
func (s *suite) awaitRecovery() {
	s.t.Helper()
	s.awaitReady()
	for _, p := range policies() {
		key := client.ObjectKeyFromObject(p)
		s.eventually(recoveredWithin, func() bool { return s.touch(key) == nil }, "the API server doesn't take a change")
	}
	for _, p := range policies() {
		s.AwaitEnforced(s.t, client.ObjectKeyFromObject(p))
	}
}

// scriptHangs never ends by itself, but goes with the suite: it waits for a lock that
// the suite holds. What it runs is the shell itself, as a program that hangs would be.
func scriptHangs(lock string) string { return fmt.Sprintf("exec flock %s false", lock) }
