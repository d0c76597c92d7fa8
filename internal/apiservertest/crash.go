package apiservertest

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The programs that Crash kills.
const (
	etcdProgram      = "etcd"
	apiServerProgram = "kube-apiserver"
)

// restartWithin is how long a program may take to be ready again.
const restartWithin = 2 * time.Minute

// process is a program that was killed and started again.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Crash kills the server's "etcd" or "kube-apiserver", as if it ran out of memory,
// and returns what starts it again with the same data and waits until it is ready.
func (s *Server) Crash(t testing.TB, program string) (restart func(testing.TB)) {
	t.Helper()
	s.require(t)
	plane := s.env.ControlPlane
	own, health := "--data-dir="+plane.Etcd.DataDir, plane.Etcd.URL.JoinPath("health").String()
	if program == apiServerProgram {
		own, health = "--cert-dir="+plane.APIServer.CertDir, strings.TrimSuffix(s.adminConfig.Host, "/")+"/readyz"
	}
	pid, args := find(t, program, own)
	if p := s.crashed[program]; p != nil {
		p.kill()
	} else {
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
		require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, Eventually, Tick, "%s doesn't end", program)
	}
	return func(t testing.TB) {
		t.Helper()
		s.startAgain(t, program, args)
		require.Eventually(t, func() bool { return answers(health) }, restartWithin, Tick, "%s isn't ready again", program)
	}
}

// find returns the process of a program that was started with an argument, and all
// its arguments.
func find(t testing.TB, program, argument string) (int, []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // It has ended.
		}
		args := strings.Split(string(bytes.TrimSuffix(text, []byte{0})), "\x00")
		if filepath.Base(args[0]) == program && slices.Contains(args, argument) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			require.NoError(t, err)
			return pid, args
		}
	}
	require.FailNow(t, fmt.Sprintf("no %s runs with %s", program, argument))
	return 0, nil
}

func (s *Server) startAgain(t testing.TB, program string, args []string) {
	t.Helper()
	p := &process{cmd: exec.Command(args[0], args[1:]...), ended: make(chan struct{})}
	// However the test ends, the process goes with it. The kernel sends the signal
	// when the thread that started the process ends, so this one waits.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer close(p.ended)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait()
		}
	}()
	require.NoError(t, <-started, "starting %s again", program)
	if s.crashed == nil {
		s.crashed = map[string]*process{}
	}
	s.crashed[program] = p
}

// answers asks a health check. It is about whether the server is there, not whose
// certificate it has.
func answers(address string) bool {
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	response, err := (&http.Client{Transport: transport, Timeout: time.Second}).Get(address) //nolint:noctx // The timeout bounds it.
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}
