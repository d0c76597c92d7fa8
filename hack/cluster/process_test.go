//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
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
	require.Equal(t, process{pid: 4711, startTime: 98765}, p)
	for _, text := range []string{"", "4711", "x 1", "4711 x", "-1 5", "0 5", "1 5"} {
		_, err := parseProcess(text)
		require.Error(t, err, "%q", text)
	}
}

func TestRecordedProcess(t *testing.T) {
	pidDir = t.TempDir()
	require.NoError(t, recordProcess(node(1), "test", os.Getpid()))
	require.NoError(t, writeFile(pidDir+"/node-1/broken", "half of a rec"))

	list, err := recordedProcesses()
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "test of node-1", list[0].String())
	require.Equal(t, os.Getpid(), list[0].pid)
	require.True(t, list[0].alive())
}

// A pid that another process has by now must not be killed.
func TestKillSparesAReusedPID(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	require.NoError(t, cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	start, err := startTime(cmd.Process.Pid)
	require.NoError(t, err)
	other := process{pid: cmd.Process.Pid, startTime: start + 1}
	require.False(t, other.alive())
	require.NoError(t, other.kill())
	require.True(t, exists(fmt.Sprintf("/proc/%d", cmd.Process.Pid)))

	same := process{pid: cmd.Process.Pid, startTime: start}
	require.True(t, same.alive())
	require.NoError(t, same.kill())
	require.ErrorContains(t, <-ended, "killed")
	require.False(t, same.alive())
	require.NoError(t, same.kill(), "killing twice")
}
