package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// unreachable is the configuration of a cluster whose API server is away.
const unreachable = `apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: none, user: {token: none}}]
contexts: [{name: none, context: {cluster: none, user: none}}]
current-context: none
`

// An agent that waits for its API server still ends when it is told to.
func TestAgentWithoutAPIServerStops(t *testing.T) {
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	require.NoError(t, os.WriteFile(kubeconfig, []byte(unreachable), 0o600))
	t.Setenv("KUBECONFIG", kubeconfig)

	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	ended := make(chan int, 1)
	go func() {
		var output bytes.Buffer
		ended <- run(ctx, []string{"agent", "--node-name=none", "--health-address=127.0.0.1:0", "--metrics-address=0"}, &output, &output)
	}()
	select {
	case code := <-ended:
		require.Equal(t, exitOK, code)
		require.Error(t, ctx.Err(), "it ran until it was told to stop")
	case <-time.After(stopWithin + 10*time.Second):
		t.Fatal("the agent doesn't stop")
	}
}
