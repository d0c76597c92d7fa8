package main

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An agent that waits for its API server still ends when it is told to.
func TestAgentWithoutAPIServerStops(t *testing.T) {
	t.Setenv("KUBECONFIG", kubeconfigFor(t, "https://127.0.0.1:1"))

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
