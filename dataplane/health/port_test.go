package health

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
)

// spoken is a log that can be read while it is written.
type spoken struct {
	mu   sync.Mutex
	text strings.Builder
}

func (s *spoken) logger() logr.Logger {
	return funcr.New(func(_, args string) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.text.WriteString(args + "\n")
	}, funcr.Options{})
}

func (s *spoken) says(text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Contains(s.text.String(), text)
}

// The second agent of a node waits until the first has given the port back, and names it.
func TestAnAgentWaitsForTheHealthPort(t *testing.T) {
	t.Parallel()
	first, err := Claim(t.Context(), "127.0.0.1:0", Holder{}, logr.Discard())
	require.NoError(t, err)
	address := first.listener.Addr().String()
	first.ServeHandler((&Checks{}).Handler(Holder{Namespace: "moat-system", Pod: "moat-agent-x"}))

	log, claimed := &spoken{}, make(chan *Port, 1)
	go func() {
		second, err := Claim(t.Context(), address, Holder{}, log.logger())
		if err == nil {
			claimed <- second
		}
	}()
	require.Eventually(t, func() bool { return log.says("moat-system/moat-agent-x") }, 10*time.Second, time.Millisecond)
	require.Empty(t, claimed)
	first.Close()
	(<-claimed).Close()
}

// What holds the port need not be an agent, and may never answer.
func TestAnAgentThatWaitsForTheHealthPortEnds(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	log, ended := &spoken{}, make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		_, err := Claim(ctx, listener.Addr().String(), Holder{}, log.logger())
		ended <- err
	}()
	require.Eventually(t, func() bool { return log.says("does not answer as an agent does") }, 10*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
	_, err = Claim(t.Context(), "192.0.2.1:9471", Holder{}, logr.Discard())
	require.ErrorContains(t, err, "listening for health checks", "an address that isn't the node's")
}
