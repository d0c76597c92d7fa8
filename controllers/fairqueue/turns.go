// Package fairqueue is a controller's work queue that shares the workers' time evenly
// between namespaces: 10,000 objects of one namespace, or a few that take long, don't keep
// those of another waiting. One worker is always left to the others. Within a namespace the
// first comes first.
//
// turns is start-time fair queueing (Goyal, Vin, Cheng 1996) and knows no clock: what each
// turn took is told to it. The queue around it is client-go's.
package fairqueue

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// turns decides whose turn is next: the namespace's that has used least of the workers'
// time. The zero value isn't ready to use. It isn't safe for concurrent use.
type turns struct {
	most    int // requests of one namespace at a time
	waiting map[string][]reconcile.Request
	flows   map[string]*flow
	now     time.Duration // what the namespace had used whose turn came last
}

// flow is what a namespace has used.
type flow struct {
	used    time.Duration // never less than now, from when it waits on
	last    time.Duration // what its last turn took: the guess for the next one
	running int
}

func newTurns(workers int) *turns {
	return &turns{most: max(1, workers-1), waiting: map[string][]reconcile.Request{}, flows: map[string]*flow{}}
}

// Push adds a request. A namespace that had nothing to do gets no credit for that.
func (t *turns) Push(request reconcile.Request) {
	f := t.flows[request.Namespace]
	if f == nil {
		f = &flow{}
		t.flows[request.Namespace] = f
	}
	if len(t.waiting[request.Namespace]) == 0 && f.running == 0 {
		f.used = max(f.used, t.now)
	}
	t.waiting[request.Namespace] = append(t.waiting[request.Namespace], request)
}

// Len counts the requests that wait for a worker: not those of a namespace that has as many
// as it may.
func (t *turns) Len() int {
	n := 0
	for namespace, line := range t.waiting {
		if t.mayRun(namespace) {
			n += len(line)
		}
	}
	return n
}

func (t *turns) mayRun(namespace string) bool { return t.flows[namespace].running < t.most }

// Pop takes the next request. Len mustn't be zero.
func (t *turns) Pop() reconcile.Request {
	candidates := slices.DeleteFunc(slices.Collect(maps.Keys(t.waiting)), func(namespace string) bool { return !t.mayRun(namespace) })
	next := slices.MinFunc(candidates, func(a, b string) int {
		return cmp.Or(cmp.Compare(t.flows[a].used, t.flows[b].used), cmp.Compare(a, b))
	})
	line, f := t.waiting[next], t.flows[next]
	if t.waiting[next] = line[1:]; len(line) == 1 {
		delete(t.waiting, next)
	}
	t.now = max(t.now, f.used)
	f.used += f.last
	f.running++
	t.forget()
	return line[0]
}

// took says how long the turn of a request was.
func (t *turns) took(request reconcile.Request, long time.Duration) {
	f := t.flows[request.Namespace]
	f.used += long - f.last
	f.last = long
	f.running--
}

// forget drops what is known of namespaces that have nothing to do and have used no more
// than those that wait.
func (t *turns) forget() {
	maps.DeleteFunc(t.flows, func(namespace string, f *flow) bool {
		return f.running == 0 && t.waiting[namespace] == nil && f.used <= t.now
	})
}
