package watch

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
)

// socket is the end of a connection that keeps what arrives until it is read.
type socket struct {
	net.Conn
	mu      sync.Mutex
	some    *sync.Cond
	arrived bytes.Buffer
	reads   int
}

func newSocket() *socket {
	s := &socket{}
	s.some = sync.NewCond(&s.mu)
	return s
}

func (s *socket) arrive(data []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrived.Write(data)
	s.some.Broadcast()
}

func (s *socket) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.arrived.Len() == 0 {
		s.some.Wait()
	}
	s.reads++
	return s.arrived.Read(p)
}

// readAll reads n bytes, by few at a time as TLS does, and returns when each arrived.
func readAll(t *testing.T, conn net.Conn, n int) []time.Time {
	t.Helper()
	var times []time.Time
	for len(times) < n {
		p := make([]byte, min(500, n-len(times)))
		read, err := conn.Read(p)
		require.NoError(t, err)
		for range read {
			times = append(times, time.Now())
		}
	}
	return times
}

func TestEventsOfABurstAreReadTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const events, every = 200, 10 * time.Millisecond
		s := newSocket()
		start := time.Now()
		go func() {
			for range events {
				time.Sleep(every)
				s.arrive([]byte{1})
			}
		}()
		late := readAll(t, gatherReads(s), events)
		for i, at := range late {
			require.LessOrEqual(t, at.Sub(start)-time.Duration(i+1)*every, gatherFor, "event %d", i)
		}
		require.LessOrEqual(t, s.reads, gatherAfter+int(events*every/gatherFor)+1)
		require.Equal(t, start.Add(every), late[0], "the first is read at once")
	})
}

func TestEventsAfterQuietAreReadAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSocket()
		conn := gatherReads(s)
		for range 3 {
			start := time.Now()
			for range gatherAfter {
				s.arrive([]byte{1})
				require.Equal(t, []time.Time{start}, readAll(t, conn, 1))
			}
			time.Sleep(gatherAfter * gatherFor)
		}
	})
}

func TestListsAreReadWithoutRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 100 * readMost
		s := newSocket()
		s.arrive(make([]byte, size))
		start := time.Now()
		times := readAll(t, gatherReads(s), size)
		require.Equal(t, start, times[size-1])
	})
}

// After much, what follows is read at once: a list comes in pieces of any size.
func TestListsInPiecesAreReadWithoutRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSocket()
		conn := gatherReads(s)
		start := time.Now()
		for range 100 {
			s.arrive(make([]byte, readMost))
			readAll(t, conn, readMost)
			s.arrive([]byte{1})
			readAll(t, conn, 1)
		}
		require.Equal(t, start, time.Now())
	})
}

func TestAConnectionHasRoomForWhatArrivesDuringARest(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { _ = listener.Close() }()
	config := &rest.Config{}
	GatherEvents(config)
	conn, err := config.Dial(t.Context(), "tcp", listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	gathering, ok := conn.(*gatheringConn)
	if !ok {
		t.Skip("this needs CAP_NET_ADMIN")
	}
	raw, err := gathering.Conn.(*net.TCPConn).SyscallConn()
	require.NoError(t, err)
	require.NoError(t, raw.Control(func(fd uintptr) {
		size, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
		require.NoError(t, err)
		require.Equal(t, 2*receiveMost, size, "the kernel doubles it for what it needs itself")
	}))
}
