//go:build linux

package machine

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/hack/cluster/files"
)

func TestParseStat(t *testing.T) {
	state, start, err := parseStat("123 (a) R (b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 98765 20 21")
	require.NoError(t, err)
	require.Equal(t, "S", state)
	require.EqualValues(t, 98765, start)
	_, _, err = parseStat("123 (short) S 1 2")
	require.Error(t, err)
}

func TestParseProcess(t *testing.T) {
	p, err := parseProcess("4711 98765\n")
	require.NoError(t, err)
	require.Equal(t, Process{PID: 4711, startTime: 98765}, p)
	for _, text := range []string{"", "4711", "x 1", "4711 x", "-1 5", "0 5", "1 5"} {
		_, err := parseProcess(text)
		require.Error(t, err, "%q", text)
	}
}

func TestRecordedProcess(t *testing.T) {
	pidDir = t.TempDir()
	require.NoError(t, recordProcess(Node(1), "test", os.Getpid()))
	require.NoError(t, files.WriteFile(pidDir+"/node-1/broken", "half of a rec"))

	list, err := RecordedProcesses()
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "test of node-1", list[0].String())
	require.Equal(t, os.Getpid(), list[0].PID)
	require.True(t, list[0].Alive())
}

// A pid that another process has by now must not be killed.
func TestKillSparesAReusedPID(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	start, err := startTime(cmd.Process.Pid)
	require.NoError(t, err)
	other := Process{PID: cmd.Process.Pid, startTime: start + 1}
	require.False(t, other.Alive())
	require.NoError(t, other.kill())
	require.True(t, files.Exists(fmt.Sprintf("/proc/%d", cmd.Process.Pid)))

	same := Process{PID: cmd.Process.Pid, startTime: start}
	require.True(t, same.Alive())
	require.NoError(t, same.kill())
	require.ErrorContains(t, <-ended, "killed")
	require.False(t, same.Alive())
	require.NoError(t, same.kill(), "killing twice")
}
