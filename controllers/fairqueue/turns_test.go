package fairqueue

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func request(namespace string, n int) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: namespace, Name: fmt.Sprint(n)}}
}

// take has one worker do the next n requests, of which each takes so long in its namespace,
// and returns the order.
func take(t *turns, n int, long map[string]time.Duration) (order []string) {
	for range n {
		next := t.Pop()
		order = append(order, next.Namespace+"/"+next.Name)
		t.took(next, long[next.Namespace])
	}
	return order
}

func pushAll(t *turns, namespace string, from, to int) {
	for i := from; i < to; i++ {
		t.Push(request(namespace, i))
	}
}

func TestNamespacesTakeTurns(t *testing.T) {
	q := newTurns(workers)
	even := map[string]time.Duration{"a": 1, "b": 1}
	pushAll(q, "a", 0, 4)
	pushAll(q, "b", 0, 2)
	require.Equal(t, 6, q.Len())
	require.Equal(t, []string{"a/0", "b/0", "a/1", "b/1", "a/2", "a/3"}, take(q, 6, even))
	require.Zero(t, q.Len())
}

// Whose requests take ten times as long gets a tenth of the turns.
func TestTimeIsSharedAndNotTurns(t *testing.T) {
	q := newTurns(workers)
	pushAll(q, "long", 0, 100)
	pushAll(q, "short", 0, 100)
	turnsOf := map[byte]int{}
	for _, name := range take(q, 55, map[string]time.Duration{"long": 10, "short": 1}) {
		turnsOf[name[0]]++
	}
	require.InDelta(t, 50, turnsOf['s'], 2)
}

// A namespace that comes later waits for the present turn alone, however many requests came
// before. It gets no credit for the time in which it had nothing to do.
func TestALateNamespaceIsNextAndNotPreferred(t *testing.T) {
	q := newTurns(workers)
	even := map[string]time.Duration{"flood": 1, "late": 1}
	pushAll(q, "flood", 0, 10000)
	take(q, 5000, even)
	pushAll(q, "late", 0, 10)
	require.Equal(t, []string{"late/0", "flood/5000", "late/1", "flood/5001"}, take(q, 4, even))
}

// While workers are busy with a namespace's requests, these count as what the last one took.
func TestRunningTurnsCount(t *testing.T) {
	q := newTurns(workers)
	pushAll(q, "long", 0, 10)
	take(q, 1, map[string]time.Duration{"long": 10})
	pushAll(q, "short", 0, 10)
	var order []string
	for range workers - 1 { // of whom none is done
		order = append(order, q.Pop().Namespace)
	}
	require.Equal(t, []string{"short", "short", "short"}, order)
}

// A namespace never has all workers, however long its requests take: another's request has one
// at once.
func TestOneWorkerIsLeftToTheOthers(t *testing.T) {
	q := newTurns(workers)
	pushAll(q, "flood", 0, 10)
	for range workers - 1 {
		require.Equal(t, "flood", q.Pop().Namespace)
	}
	require.Zero(t, q.Len(), "the last worker waits")
	q.Push(request("other", 0))
	require.Equal(t, 1, q.Len())
	require.Equal(t, "other", q.Pop().Namespace)
	q.took(request("flood", 0), 1)
	require.Equal(t, 7, q.Len())
	require.Equal(t, 1, newTurns(1).most, "the only worker is everybody's")
}

func TestIdleNamespacesAreForgotten(t *testing.T) {
	q := newTurns(workers)
	for i := range 1000 {
		q.Push(request(fmt.Sprint("namespace-", i), 0))
		take(q, 1, map[string]time.Duration{})
	}
	require.LessOrEqual(t, len(q.flows), 1)
	require.Empty(t, q.waiting)
}
