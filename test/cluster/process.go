package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// stopWithin is how long a process may take to stop when it is asked to: the grace
// period of an agent's pod.
const stopWithin = 60 * time.Second

// explainWithin is how long a program may take to say what it does.
const explainWithin = 5 * time.Second

// Process is a program that runs in a node.
type Process struct {
	// Log is the file that has its output. A process of the same name appends.
	Log string

	process *os.Process
	ended   chan struct{}
}

// Start starts a program in the node, under a name for its log. It is killed when
// the cluster's test ends, if it still runs then.
func (n *Node) Start(t testing.TB, name string, env []string, program string, args ...string) *Process {
	t.Helper()
	return start(t, filepath.Join(n.cluster.dir, n.Name+"-"+name+".log"), n.Do, append(n.env(), env...), program, args...)
}

// onThread runs do on a thread of its own, in the network of the test.
func onThread(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return do()
}

// start starts a program where in puts it.
func start(t testing.TB, path string, in func(func() error) error, env []string, program string, args ...string) *Process {
	t.Helper()
	p := &Process{Log: path, ended: make(chan struct{})}
	log, err := os.OpenFile(p.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	require.NoError(t, err)
	cmd := exec.Command(program, args...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = log, log
	// However the test ends, the process goes with it. The kernel sends the
	// signal when the thread that started the process ends, so this one waits.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	started := make(chan error, 1)
	go func() {
		defer close(p.ended)
		defer func() { _ = log.Close() }()
		_ = in(func() error {
			err := cmd.Start()
			started <- err
			if err != nil {
				return err
			}
			return cmd.Wait()
		})
	}()
	require.NoError(t, <-started, "starting %s %v", program, args)
	p.process = cmd.Process
	t.Cleanup(func() { p.Kill(t) })
	return p
}

// Pid is the number of the process.
func (p *Process) Pid() int { return p.process.Pid }

// Running reports whether the process hasn't ended.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Stop asks the process to end and waits until it has.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	p.end(t, syscall.SIGTERM)
}

// Kill kills the process and waits until it is gone.
func (p *Process) Kill(t testing.TB) {
	t.Helper()
	p.end(t, syscall.SIGKILL)
}

// Signal sends the process a signal and returns at once.
func (p *Process) Signal(signal syscall.Signal) {
	_ = p.process.Signal(signal) // It may end in this moment.
}

// Explain ends a Go program that still runs, and has it write to its log what each of its
// goroutines does.
func (p *Process) Explain() {
	if !p.Running() {
		return
	}
	p.Signal(syscall.SIGQUIT)
	select {
	case <-p.ended:
	case <-time.After(explainWithin):
	}
}

func (p *Process) end(t testing.TB, signal syscall.Signal) {
	t.Helper()
	if !p.Running() {
		return
	}
	p.Signal(signal)
	select {
	case <-p.ended:
	case <-time.After(stopWithin):
		_ = p.process.Kill()
		require.FailNow(t, fmt.Sprintf("a process didn't end within %s; its log is %s", stopWithin, p.Log))
	}
}
