//go:build linux

package machine

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/hack/cluster/files"
)

// A cluster of which nothing runs is in nobody's way, whoever started it.
func TestEndedCluster(t *testing.T) {
	pidDir = t.TempDir()
	r := Record{BootID: BootID(), Complete: true}
	expect := func(want bool, why string) {
		t.Helper()
		ended, err := r.Ended()
		require.NoError(t, err)
		require.Equal(t, want, ended, why)
	}
	expect(false, "complete, and without a record of its processes")
	require.NoError(t, files.WriteFile(pidDir+"/node-2/kubelet", "4194304 1\n"))
	expect(true, "its only process has ended")
	require.NoError(t, recordProcess(Node(1), "kubelet", os.Getpid()))
	expect(false, "one process runs")
	r.BootID = "another"
	expect(true, "the machine was restarted")
	pidDir = t.TempDir()
	r = Record{BootID: BootID()}
	expect(true, "up was killed before it started anything")
}
