//go:build linux

package machine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseMount(t *testing.T) {
	kind, mount := parseMount("31 22 0:27 / /sys/fs/cgroup/pids rw,nosuid shared:9 - cgroup cgroup rw,pids\n")
	require.Equal(t, "cgroup", kind)
	require.Equal(t, "/sys/fs/cgroup/pids", mount)
	kind, mount = parseMount("25 1 254:0 / / rw - ext4 /dev/vda rw")
	require.Equal(t, "ext4", kind)
	require.Equal(t, "/", mount)
	kind, _ = parseMount("garbage")
	require.Empty(t, kind)
}
