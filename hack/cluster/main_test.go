//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestExitCode(t *testing.T) {
	require.Equal(t, 0, exitCode(nil))
	require.Equal(t, 2, exitCode(fmt.Errorf("parsing: %w", usagef("wrong"))))
	require.Equal(t, 1, exitCode(fmt.Errorf("starting: %w", os.ErrPermission)))
	for script, want := range map[string]int{"exit 7": 7, "kill -9 $$": 137} {
		cmd := exec.Command("sh", "-c", script)
		require.Error(t, cmd.Run())
		require.Equal(t, want, exitCode(userCommandError{cmd.ProcessState}), script)
	}
}
