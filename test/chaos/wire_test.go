package chaos

import (
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Timing of the probes.
const (
	probeEvery = time.Millisecond

	// catchUp is how far behind the sender sends what it missed, in a burst. When
	// the machine stood still for longer, those probes were never sent.
	catchUp = 100 * time.Millisecond
)

// wire sends the probes of all streams, one of each every millisecond, and notes
// those that arrive. Streams and endpoints may come and go meanwhile.
type wire struct {
	start time.Time

	mu        sync.Mutex
	streams   []*stream // those that are sent
	known     sync.Map  // uint32, or the flow of an answer: *stream
	last      uint32    // number of a stream
	endpoints map[int]*endpoint

	epoll   int
	stopped atomic.Bool
	done    sync.WaitGroup
	gone    uint64       // packets that captures lost which are closed
	skipped atomic.Int64 // milliseconds without probes: the machine stood still
}

func newWire(t testing.TB) *wire {
	t.Helper()
	w := &wire{start: time.Now(), endpoints: map[int]*endpoint{}}
	var err error
	w.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	require.NoError(t, err)
	// A thread that wakes must not wait for the others to let it run Go.
	runtime.GOMAXPROCS(runtime.NumCPU() + 4)
	for _, loop := range []func(){w.sendLoop, w.captureLoop} {
		w.done.Go(func() {
			runtime.LockOSThread()
			goFirst()
			loop()
		})
	}
	t.Cleanup(w.stop)
	return w
}

func (w *wire) stop() {
	if w.stopped.Swap(true) {
		return
	}
	w.done.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.endpoints {
		e.close()
	}
	_ = unix.Close(w.epoll)
}

// now is the time since the start.
func (w *wire) now() time.Duration { return time.Since(w.start) }

// attach captures what comes to an endpoint.
func (w *wire) attach(t testing.TB, e *endpoint) *endpoint {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.endpoints[e.capture] = e
	require.NoError(t, unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, e.capture, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(e.capture)}))
	return e
}

// detach closes an endpoint's sockets. Its streams must have been removed.
func (w *wire) detach(e *endpoint) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.endpoints, e.capture)
	w.gone += e.lost + e.missed()
	e.close()
}

// add starts a stream. A fresh one has a new source port for each probe.
func (w *wire) add(s *stream, f flow, fresh bool) *stream {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	s.packet = newPacket(f, w.last)
	s.packet.fresh, s.dest = fresh, f.to.Addr()
	w.known.Store(w.last, s)
	if f.flags == tcpFlagSYN && s.verdict != forbidden {
		s.answers = true
		w.known.Store(answerOf{f.to, f.from.Addr()}, s)
	}
	w.streams = append(w.streams, s)
	return s
}

// answerOf identifies the answers to a stream by who sends them to whom.
type answerOf struct {
	from netip.AddrPort
	to   netip.Addr
}

// remove ends streams. What they sent may still arrive.
func (w *wire) remove(streams ...*stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams = slices.DeleteFunc(slices.Clone(w.streams), func(s *stream) bool { return slices.Contains(streams, s) })
}

// resume lets streams that were removed go on.
func (w *wire) resume(streams ...*stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams = append(slices.Clone(w.streams), streams...)
}

// goFirst lets this thread run before others, so that probes flow also while the
// machine has more to do than it can: that is when faults happen. Where it isn't
// permitted, fewer probes are sent.
func goFirst() { _ = unix.SchedSetAttr(0, &unix.SchedAttr{Policy: unix.SCHED_FIFO, Priority: 1}, 0) }

func (w *wire) sendLoop() {
	due := w.now()
	for !w.stopped.Load() {
		w.sendAll()
		due += probeEvery
		switch wait := due - w.now(); {
		case wait > 0:
			// Go's timers are too coarse for a millisecond.
			pause := unix.NsecToTimespec(wait.Nanoseconds())
			_ = unix.Nanosleep(&pause, nil)
		case wait < -catchUp:
			w.skipped.Add((-wait).Milliseconds())
			due = w.now()
		}
	}
}

// sendAll sends a probe of every stream. It holds the lock, so that an endpoint
// whose streams were removed isn't used any more.
func (w *wire) sendAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for _, s := range w.streams {
		if err := s.from.send(s.next(now), s.dest); err != nil {
			s.takeBack()
		}
	}
}

func (w *wire) captureLoop() {
	events, buffer := make([]unix.EpollEvent, 64), make([]byte, 2048)
	for !w.stopped.Load() {
		n, err := unix.EpollWait(w.epoll, events, 100)
		if err != nil && err != unix.EINTR {
			return
		}
		for _, event := range events[:max(n, 0)] {
			w.mu.Lock()
			e := w.endpoints[int(event.Fd)]
			w.mu.Unlock()
			if e != nil {
				w.drain(e, buffer)
			}
		}
	}
}

// drain notes what an endpoint captured. Not more than some hundred packets, so
// that no endpoint keeps the others waiting.
func (w *wire) drain(e *endpoint, buffer []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return
	}
	for range 256 {
		n, err := unix.Read(e.capture, buffer)
		if err != nil {
			return
		}
		if s, ok := parse(buffer[:n]); ok {
			w.note(e, s)
		}
	}
}

func (w *wire) note(e *endpoint, p seen) {
	if p.answer {
		if s, ok := w.known.Load(answerOf{p.from, p.to.Addr()}); ok && s.(*stream).from == e {
			s.(*stream).answer(p.number)
		}
		return
	}
	if s, ok := w.known.Load(p.stream); ok && s.(*stream).to == e {
		s.(*stream).arrive(p.number)
	}
}

// addMissed adds what the captures had no room for.
func (w *wire) addMissed(d disturbance) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.endpoints {
		e.lost += e.missed()
		d["capture of "+e.name] = e.lost
	}
	d["captures of pods that are gone"] = w.gone
}
