//go:build linux

package machine

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestMachineNamespaces(t *testing.T) {
	for _, name := range []string{"moat-control-plane", "moat-world", "moat-node-1", "moat-node-20"} {
		require.True(t, isMachineNetns(name), name)
	}
	for _, name := range []string{"moat-node-21", "moat-test-1", "moat-node-1x", "node-1"} {
		require.False(t, isMachineNetns(name), name)
	}
}
