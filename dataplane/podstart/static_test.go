package podstart

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A static pod is known by what the kubelet tells the runtime.
func TestStaticPods(t *testing.T) {
	for source, want := range map[string]bool{"api": false, "file": true, "http": true, "": false} {
		sandbox := pod("a", "10.0.0.1")
		if source != "" {
			sandbox.Annotations = map[string]string{"kubernetes.io/config.source": source}
		}
		parsed, guarded := parse(sandbox)
		require.True(t, guarded)
		require.Equal(t, want, parsed.Static, source)
	}
}
