package enforcement

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/enforcementtest"
	"github.com/moat-dev/moat/controllers/pace"
)

// writes keeps when the states of objects were seen first.
type writes struct {
	mu    sync.Mutex
	seen  map[string]bool
	times []time.Time
}

func (w *writes) see(object client.Object) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if version := object.GetResourceVersion(); !w.seen[version] {
		w.seen[version] = true
		w.times = append(w.times, time.Now())
	}
}

// changes is how many states there were after the first.
func (w *writes) changes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.times) - 1
}

// TestStatusesAreWrittenEveryTwoSeconds lets a node change its mind ten times in a
// second, with the controllers as they are shipped: neither an AppIsolation nor a
// PolicyEnforcement is written more often than every two seconds, but for the one write that
// takes back an Enforced that was True, and both end up right.
func TestStatusesAreWrittenEveryTwoSeconds(t *testing.T) {
	c := newClusterOf(t, ReportAll, 0)
	node := c.NodeName("one")
	c.Agent(node)
	c.Pod("a", node)
	c.CreateApp()
	byHand := c.HandWritten("by-hand")
	policy := c.Programmed()
	c.Holds(node, policy, enforcementtest.ReferenceTo(byHand))
	c.Expect("Ready", "True", "AllNodesEnforced", "1/1")
	c.ExpectPolicy(byHand, "True", "AllNodesEnforced", "1/1")

	apps, policies := &writes{seen: map[string]bool{}}, &writes{seen: map[string]bool{}}
	stop := c.WatchApps(func(app *v1alpha1.AppIsolation) { apps.see(app) })
	// What a write happens to find may be what the last one found.
	few := func() bool { return apps.changes() < 3 || policies.changes() < 3 }
	for start := time.Now(); time.Since(start) < 4*pace.Every || few() && time.Since(start) < 20*pace.Every; {
		c.Report(node)
		policies.see(c.EnforcementOf("by-hand"))
		time.Sleep(rand.N(100 * time.Millisecond))
		c.Holds(node, policy, enforcementtest.ReferenceTo(byHand))
		policies.see(c.EnforcementOf("by-hand"))
		time.Sleep(rand.N(100 * time.Millisecond))
	}
	c.Expect("Ready", "True", "AllNodesEnforced", "1/1")
	c.ExpectPolicy(byHand, "True", "AllNodesEnforced", "1/1")
	stop()
	for kind, w := range map[string]*writes{"AppIsolation": apps, "PolicyEnforcement": policies} {
		// The first is the state before; what is late is seen close to the next.
		times := w.times[1:]
		require.GreaterOrEqual(t, len(times), 3, "%s has to change for this to mean anything", kind)
		for i := 2; i < len(times); i++ {
			require.Greater(t, times[i].Sub(times[i-2]), pace.Every*3/4, "%s", kind)
		}
	}
}
