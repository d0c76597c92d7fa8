package dataplane

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/kernel/nfnetlink"
)

// Timing of the waker.
const (
	// wakeRest is the least time between two wake-ups. wakeFactor times what a glance
	// took is the least as well: while other programs write rules all the time, glances take
	// two thirds of a per cent of a core.
	wakeRest   = 20 * time.Millisecond
	wakeFactor = 150

	// sizeEvery is how often the sizes of legacy tables are asked for, of which the
	// kernel tells no listener: four system calls.
	sizeEvery = 100 * time.Millisecond
)

// waker tells the sync loop that another program may have changed rules, so that it need not
// wait for the next inspection. It proves nothing: what it misses, the inspection sees.
type waker struct {
	woken chan time.Time // holds one: when the kernel told

	mu       sync.Mutex
	listener *nfnetlink.Listener
	end      chan struct{} // of asking for sizes; nil where they are not asked for

	rest atomic.Int64 // nanoseconds until the next wake-up
}

func newWaker() *waker { return &waker{woken: make(chan time.Time, 1)} }

// open begins to listen in the network namespace of the calling thread, once, and for
// the legacy backend to ask. Where it can't, inspections remain.
func (w *waker) open(backend iptables.Backend) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener == nil {
		if listener, err := nfnetlink.Listen(); err == nil {
			w.listener = listener
			go w.listen(listener)
		}
	}
	if w.end == nil && backend == iptables.Legacy {
		w.end = make(chan struct{})
		go w.ask(iptables.OpenSizes(), w.end)
	}
}

// close ends the listening and asking.
func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.listener != nil {
		w.listener.Close()
		w.listener = nil
	}
	if w.end != nil {
		close(w.end)
		w.end = nil
	}
}

// listen wakes the loop with each change of nft's rules.
func (w *waker) listen(listener *nfnetlink.Listener) {
	for listener.Wait() == nil {
		w.wake()
		w.pause()
	}
}

// pause waits until the loop may be woken again.
func (w *waker) pause() {
	time.Sleep(wakeRest) // the loop has looked by then, and said how long it took
	time.Sleep(time.Duration(w.rest.Load()))
}

// ask wakes the loop when the size of a legacy table has changed.
func (w *waker) ask(sizes *iptables.Sizes, end chan struct{}) {
	defer sizes.Close()
	ticker := time.NewTicker(sizeEvery)
	defer ticker.Stop()
	for {
		select {
		case <-end:
			return
		case <-ticker.C:
			if sizes.Changed() {
				w.wake()
				w.pause()
			}
		}
	}
}

func (w *waker) wake() {
	select {
	case w.woken <- time.Now():
	default: // the loop has yet to look, and then sees this too
	}
}

// took notes how long a look took that the waker caused.
func (w *waker) took(glance time.Duration) {
	w.rest.Store(int64(min(wakeFactor*glance, resyncEvery)))
}
