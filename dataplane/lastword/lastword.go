// Package lastword knows for how long the API server has said nothing to each watch of
// an agent. A dead watch and a quiet cluster look the same. Bookmarks tell them apart: the API
// server sends one each minute to a client that asks for them, as client-go does.
//
// A word is what the agent's store takes over: a list that is complete, an event or a
// bookmark, or the API server's answer to a watch that goes on where the last one ended.
// The items of a streamed list are no words until it is complete: the store doesn't have them
// before.
//
// A watch that was silent for renewAfter is ended, and client-go asks for a new one. That
// replaces a watch that died without a sign. It also makes an API server that sends no bookmarks
// (--watch-cache=false) say a word.
package lastword

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
)

const (
	// CutOffAfter is the age of the last word from which the agent counts as cut off: two
	// bookmarks are missing then, and a new watch got no answer for a minute.
	CutOffAfter = 3 * time.Minute

	// renewAfter is how long a watch may be silent until it is asked for again. The API
	// server sends a bookmark after 60 to 75 seconds of silence.
	renewAfter = 2 * time.Minute
)

// Words holds when the last word came to each watch. It is safe for concurrent use.
type Words struct {
	cutOffAfter, renewAfter time.Duration // immutable

	mu   sync.Mutex
	last map[string]time.Time // by resource
}

// New returns Words of no watch.
func New() *Words { return Within(CutOffAfter, renewAfter) }

// Within is New with other bounds. Tests use it, which can't wait for minutes.
func Within(cutOffAfter, renewAfter time.Duration) *Words {
	return &Words{cutOffAfter: cutOffAfter, renewAfter: renewAfter, last: map[string]time.Time{}}
}

// Age is how long ago the last word came to the watch of a resource.
type Age struct {
	Resource string
	Age      time.Duration
}

// Ages returns the age of each watch's last word, the oldest first. For a watch without a word it
// is the age of the watch.
func (w *Words) Ages() []Age {
	w.mu.Lock()
	defer w.mu.Unlock()
	ages := make([]Age, 0, len(w.last))
	for _, resource := range slices.Sorted(maps.Keys(w.last)) {
		ages = append(ages, Age{Resource: resource, Age: time.Since(w.last[resource])})
	}
	slices.SortStableFunc(ages, func(a, b Age) int { return cmp.Compare(b.Age, a.Age) })
	return ages
}

// CutOff returns nil while no last word is too old. Otherwise the error names the watch.
func (w *Words) CutOff() error {
	ages := w.Ages()
	if len(ages) == 0 || ages[0].Age < w.cutOffAfter {
		return nil
	}
	return fmt.Errorf("the API server has said nothing of %s for %s, so that changes since then may be missing on this node",
		ages[0].Resource, ages[0].Age.Round(time.Second))
}

func (w *Words) heard(resource string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last[resource] = time.Now()
}

// Listen returns a ListerWatcher that passes on the lists and watches of source, and notes each
// word.
func (w *Words) Listen(resource string, source toolscache.ListerWatcher) toolscache.ListerWatcher {
	w.heard(resource)
	from := toolscache.ToListerWatcherWithContext(source)
	return &toolscache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list, err := from.ListWithContext(ctx, options)
			if page, pageErr := meta.ListAccessor(list); err == nil && pageErr == nil && page.GetContinue() == "" {
				w.heard(resource)
			}
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			stream, err := from.WatchWithContext(ctx, options)
			if err != nil {
				return nil, err
			}
			h := &hearing{
				heard: func() { w.heard(resource) }, renewAfter: w.renewAfter,
				source: stream, events: make(chan watch.Event), ended: make(chan struct{}),
				listing: options.SendInitialEvents != nil && *options.SendInitialEvents,
			}
			if !h.listing {
				h.heard()
			}
			go h.run()
			return h, nil
		},
	}
}

// hearing passes on the events of one watch.
type hearing struct {
	heard      func()
	renewAfter time.Duration
	source     watch.Interface
	events     chan watch.Event
	once       sync.Once
	ended      chan struct{}

	listing bool // the events until now are a list that isn't complete; only run uses it
}

// Stop implements watch.Interface.
func (h *hearing) Stop() {
	h.once.Do(func() { close(h.ended) })
	h.source.Stop()
}

// ResultChan implements watch.Interface. The channel is closed when the watch ends.
func (h *hearing) ResultChan() <-chan watch.Event { return h.events }

func (h *hearing) run() {
	defer close(h.events)
	defer h.source.Stop()
	silence := time.NewTimer(h.renewAfter)
	defer silence.Stop()
	for {
		select {
		case <-h.ended:
			return
		case <-silence.C:
			if !h.listing { // a list has a time limit of its own
				return
			}
		case event, open := <-h.source.ResultChan():
			if !open {
				return
			}
			select {
			case <-h.ended:
				return
			case h.events <- event:
			}
			h.note(event)
			silence.Reset(h.renewAfter)
		}
	}
}

// note takes an event that was passed on.
func (h *hearing) note(event watch.Event) {
	if event.Type == watch.Error {
		return
	}
	if h.listing {
		h.listing = !endsList(event)
	}
	if !h.listing {
		h.heard()
	}
}

// endsList reports whether an event is the bookmark that ends a streamed list.
func endsList(event watch.Event) bool {
	if event.Type != watch.Bookmark {
		return false
	}
	object, err := meta.Accessor(event.Object)
	return err == nil && object.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true"
}
