package bench

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/budget/budgettest"
)

// The hostile namespace has four pods on the node. Three have a policy each that is as
// expensive as the budgets admit, and of another kind with each writing. All other policies
// are the generator's and select the fourth pod: among them are some that are over a budget
// and close it, so that they cost nothing in the kernel, and as much as any to be judged.
const (
	hostileNamespace = "hostile"
	hostilePods      = 4
	hostileSeed      = 1

	// hostilePerSecond is how many policies are written a second, of which one of
	// hostileTurns is expensive. An agent joins what comes while it syncs, so that more of
	// them would cost it little more.
	hostilePerSecond = 16
	hostileTurns     = 8

	// hostileBytes bounds a policy. With the fields that the API server notes for it
	// (managedFields), a larger one is too large for etcd.
	hostileBytes = 1 << 20
)

func hostileLabels(pod int) map[string]string { return map[string]string{"app": fmt.Sprint("a", pod)} }

// tenant writes the policies of the hostile namespace.
type tenant struct {
	api     kubernetes.Interface
	largest []networkingv1.NetworkPolicySpec
	others  []networkingv1.NetworkPolicySpec
	created map[string]bool
	written atomic.Int64
	ended   atomic.Bool // it writes no more
}

// newTenant makes so many policies. They aren't written.
func newTenant(api kubernetes.Interface, policies, pods int) *tenant {
	w := &tenant{api: api, created: map[string]bool{}, largest: budgettest.Largest(budget.Defaults(), pods)}
	generator := budgettest.New(hostileNamespace, hostileSeed)
	for len(w.others) < max(1, policies-(hostilePods-1)) {
		if np := generator.Next(); np.Size() <= hostileBytes {
			w.others = append(w.others, np.Spec)
		}
	}
	return w
}

// policy returns what is written as the given number. The expensive ones come first, so that
// they are the oldest, and each of them becomes another kind with each of its turns.
func (w *tenant) policy(number int) *networkingv1.NetworkPolicy {
	number -= hostilePods - 1
	if number < 0 {
		return w.expensive(number + hostilePods - 1)
	}
	if number%hostileTurns == 0 {
		return w.expensive(number/hostileTurns + hostilePods - 1)
	}
	turn := number - number/hostileTurns - 1
	i, round := turn%len(w.others), turn/len(w.others)
	return tenantPolicy(fmt.Sprint("p", i), 0, &w.others[(i+round)%len(w.others)])
}

func (w *tenant) expensive(turn int) *networkingv1.NetworkPolicy {
	pod := 1 + turn%(hostilePods-1)
	return tenantPolicy(fmt.Sprint("largest-", pod), pod, &w.largest[(turn+turn/len(w.largest))%len(w.largest)])
}

func tenantPolicy(name string, pod int, spec *networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: hostileNamespace, Name: name}, Spec: *spec}
	np.Spec.PodSelector = metav1.LabelSelector{MatchLabels: hostileLabels(pod)}
	return np
}

// write creates a policy, or replaces it.
func (w *tenant) write(ctx context.Context, np *networkingv1.NetworkPolicy) error {
	policies := w.api.NetworkingV1().NetworkPolicies(hostileNamespace)
	var err error
	if w.created[np.Name] {
		_, err = policies.Update(ctx, np, metav1.UpdateOptions{})
	} else {
		_, err = policies.Create(ctx, np, metav1.CreateOptions{})
	}
	if err != nil {
		return fmt.Errorf("writing policy %s: %w", np.Name, err)
	}
	w.created[np.Name] = true
	w.written.Add(1)
	return nil
}

// once is how many are written until each was, and a tenth of them once more.
func (w *tenant) once() int { return len(w.others) * 11 / 10 * hostileTurns / (hostileTurns - 1) }

// done reports whether so many are written, or none will be any more.
func (w *tenant) done() bool { return w.ended.Load() || w.written.Load() >= int64(w.once()) }

// run writes until the returned function is called, which returns how many there were a
// second.
func (w *tenant) run(t testing.TB) (stop func() float64) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done, start := make(chan error, 1), time.Now()
	go func() {
		defer w.ended.Store(true)
		ticker := time.NewTicker(time.Second / hostilePerSecond)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				done <- nil
				return
			case <-ticker.C:
			}
			if err := w.write(ctx, w.policy(int(w.written.Load()))); err != nil && ctx.Err() == nil {
				done <- err
				return
			}
		}
	}()
	return func() float64 {
		cancel()
		require.NoError(t, <-done)
		return float64(w.written.Load()) / time.Since(start).Seconds()
	}
}

// Each expensive policy changes its kind with each of its turns, so that all its sets and
// rules are others, and all policies are written.
func TestATenantRewritesAllItsPolicies(t *testing.T) {
	w := &tenant{}
	for n := range 6 {
		w.largest = append(w.largest, budgettest.Peers(10+n, 1))
	}
	for n := range 47 {
		w.others = append(w.others, budgettest.Peers(20+n, 1))
	}
	kinds, names := map[string][]int{}, map[string]int{}
	for number := range w.once() {
		np := w.policy(number)
		names[np.Name]++
		if np.Spec.PodSelector.MatchLabels["app"] != "a0" {
			size := np.Size()
			before := kinds[np.Name]
			require.False(t, len(before) > 0 && before[len(before)-1] == size, "%s: %v", np.Name, before)
			kinds[np.Name] = append(before, size)
		}
	}
	require.Len(t, names, 50)
	require.Len(t, kinds, hostilePods-1)
	require.Greater(t, names["p0"], 1)
}
