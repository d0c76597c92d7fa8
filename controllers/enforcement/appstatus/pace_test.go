package appstatus

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/statuswriter"
)

// TestANewGenerationIsOneWrite: where the nodes confirm at once, no status says that they are
// about to.
func TestANewGenerationIsOneWrite(t *testing.T) {
	c := newCluster(t)
	node := c.NodeName("one")
	c.Agent(node)
	c.Pod("a", node)
	c.CreateApp()
	c.Holds(node, c.Programmed())
	c.Expect("Ready", "True", "AllNodesEnforced", "1/1")
	var mu sync.Mutex
	var reasons []string
	stop := c.WatchApps(func(app *v1alpha1.AppIsolation) {
		mu.Lock()
		defer mu.Unlock()
		for _, condition := range app.Status.Conditions {
			if condition.Type == v1alpha1.ConditionEnforced && app.Generation > 1 && condition.ObservedGeneration == app.Generation {
				reasons = append(reasons, condition.Reason)
			}
		}
	})
	const edits = 5
	slow := 0 // edits that a busy machine confirmed late
	for port := int32(1); port <= edits; port++ {
		start := time.Now()
		c.OpenPort(port)
		c.Holds(node, c.Programmed())
		if time.Since(start) > statuswriter.Patience/2 {
			slow++
		}
		c.Expect("Ready", "True", "AllNodesEnforced", "1/1")
	}
	stop()
	confirmed := slices.DeleteFunc(slices.Clone(reasons), func(reason string) bool { return reason != v1alpha1.ReasonAllNodesEnforced })
	require.Len(t, confirmed, edits)
	require.LessOrEqual(t, len(reasons)-edits, slow, "%v", reasons)
}
