package fairqueue

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// The operator's queue: four workers.
const workers = 4

func limiter() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](5*time.Millisecond, time.Second)
}

// turnsBefore returns how many turns a flood of 10,000 requests of one namespace has before a
// request of another that came last.
func turnsBefore(t *testing.T, q workqueue.TypedRateLimitingInterface[reconcile.Request], last reconcile.Request) int {
	t.Helper()
	for i := range 10000 {
		q.Add(request("flood", i))
	}
	q.Add(last)
	var mu sync.Mutex
	var running sync.WaitGroup
	before, found := 0, -1
	for range workers {
		running.Go(func() {
			for {
				next, down := q.Get()
				if down {
					return
				}
				mu.Lock()
				if next == last {
					found = before
					q.ShutDown()
				}
				before++
				mu.Unlock()
				q.Done(next)
			}
		})
	}
	running.Wait()
	require.GreaterOrEqual(t, found, 0)
	return found
}

func TestAFloodOfOneNamespaceKeepsNoOtherWaiting(t *testing.T) {
	require.LessOrEqual(t, turnsBefore(t, newQueue("", limiter(), workers), request("other", 0)), 2*workers)
	inOrder := workqueue.NewTypedRateLimitingQueue(limiter())
	require.InDelta(t, 10000, turnsBefore(t, inOrder, request("other", 0)), workers, "where the first comes first")
}

// While a flood has as many workers as it may, and none of them is done, another's request is
// worked on at once; and the flood goes on once one is done.
func TestAWorkerIsFreeBesideALongFlood(t *testing.T) {
	q := newQueue("", limiter(), workers)
	for i := range 10 {
		q.Add(request("flood", i))
	}
	got := make(chan reconcile.Request)
	for range workers {
		go func() {
			for {
				next, down := q.Get()
				if down {
					return
				}
				got <- next // until it is taken, the worker is busy with it
				q.Done(next)
			}
		}()
	}
	defer q.ShutDown()
	require.Eventually(t, func() bool { return q.Len() == 0 }, time.Minute, time.Millisecond, "the flood has as many workers as it may")
	q.Add(request("other", 0))
	require.Eventually(t, func() bool { return q.Len() == 0 }, time.Minute, time.Millisecond, "the other's request has a worker")
	seen := map[string]int{}
	for range 11 {
		seen[(<-got).Namespace]++
	}
	require.Equal(t, map[string]int{"flood": 10, "other": 1}, seen)
}

// What the rest of a work queue does stays as it is: a request waits once, comes again if it
// is added while it is worked on, and comes late where that is asked for.
func TestItIsAWorkQueue(t *testing.T) {
	q := newQueue("", limiter(), workers)
	q.Add(request("a", 1))
	q.Add(request("a", 1))
	require.Equal(t, 1, q.Len())
	got, _ := q.Get()
	q.Add(got)
	require.Zero(t, q.Len(), "while it is worked on")
	q.Done(got)
	again, _ := q.Get()
	require.Equal(t, got, again)
	q.Done(again)

	start := time.Now()
	q.AddAfter(request("b", 2), 50*time.Millisecond)
	late, _ := q.Get()
	require.Equal(t, request("b", 2), late)
	require.GreaterOrEqual(t, time.Since(start), 50*time.Millisecond)
	q.Done(late)
	q.AddRateLimited(request("c", 3))
	require.Equal(t, 1, q.NumRequeues(request("c", 3)))
	q.ShutDown()
	_, down := q.Get()
	for !down {
		_, down = q.Get()
	}
}
