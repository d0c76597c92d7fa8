package fairqueue

import (
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// queue tells the turns how long each took. It is safe for concurrent use.
type queue struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	turns *lockedTurns

	mu    sync.Mutex
	begun map[reconcile.Request]time.Time
}

// For returns what the option NewQueue of a controller with so many workers takes.
func For(workers int) func(name string, limiter workqueue.TypedRateLimiter[reconcile.Request]) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	return func(name string, limiter workqueue.TypedRateLimiter[reconcile.Request]) workqueue.TypedRateLimitingInterface[reconcile.Request] {
		return newQueue(name, limiter, workers)
	}
}

func newQueue(name string, limiter workqueue.TypedRateLimiter[reconcile.Request], workers int) *queue {
	turns := &lockedTurns{turns: newTurns(workers)}
	inner := workqueue.NewTypedWithConfig(workqueue.TypedQueueConfig[reconcile.Request]{Name: name, Queue: turns})
	return &queue{
		TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[reconcile.Request]{
			DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[reconcile.Request]{Name: name, Queue: inner}),
		}),
		turns: turns,
		begun: map[reconcile.Request]time.Time{},
	}
}

// Get waits for the next request.
func (q *queue) Get() (reconcile.Request, bool) {
	request, down := q.TypedRateLimitingInterface.Get()
	if !down {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.begun[request] = time.Now()
	}
	return request, down
}

// Done ends the turn of a request. Where its namespace had as many as it may, its next request
// goes to the worker that calls this, which asks for another one.
func (q *queue) Done(request reconcile.Request) {
	q.mu.Lock()
	long := time.Since(q.begun[request])
	delete(q.begun, request)
	q.mu.Unlock()
	q.turns.took(request, long)
	q.TypedRateLimitingInterface.Done(request)
}

// lockedTurns are turns that are safe for concurrent use: client-go's queue holds a lock of
// its own while it calls Push and Pop.
type lockedTurns struct {
	mu    sync.Mutex
	turns *turns
}

// Push implements workqueue.Queue.
func (l *lockedTurns) Push(request reconcile.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turns.Push(request)
}

// Touch implements workqueue.Queue: a request that waits already keeps its place.
func (l *lockedTurns) Touch(reconcile.Request) {}

// Len implements workqueue.Queue.
func (l *lockedTurns) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.turns.Len()
}

// Pop implements workqueue.Queue.
func (l *lockedTurns) Pop() reconcile.Request {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.turns.Pop()
}

func (l *lockedTurns) took(request reconcile.Request, long time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turns.took(request, long)
}
