package appstatus

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// TestHeldBackAgentIsNeverEnforced holds one of three agents back at each
// generation, lets it report everything but that generation, and checks every
// state of the object that a watcher can see.
func TestHeldBackAgentIsNeverEnforced(t *testing.T) {
	c := newCluster(t)
	late := c.NodeName("late")
	nodes := []string{c.NodeName("one"), c.NodeName("two"), late}
	for _, node := range nodes {
		c.Agent(node)
		c.Pod("on-"+node, node)
	}
	// released is the generation of the AppIsolation up to which the late node has
	// been let go on.
	var released atomic.Int64
	stop := c.WatchApps(func(app *v1alpha1.AppIsolation) {
		for _, name := range []string{"Enforced", "Ready"} {
			if kubectlWouldStopWaiting(app, name) && app.Generation > released.Load() {
				t.Errorf("%s is True for generation %d: %+v", name, app.Generation, app.Status.Enforcement)
			}
		}
	})
	before := v1alpha1.PolicyReference{UID: "none", Generation: 1}
	c.CreateApp()
	for port := int32(1); port <= 4; port++ {
		c.OpenPort(port)
		policy := c.Programmed()
		c.Holds(late, before, v1alpha1.PolicyReference{UID: "another", Generation: policy.Generation})
		for _, node := range nodes[:2] {
			c.Holds(node, policy)
		}
		c.Expect("Enforced", "False", "Progressing", "2/3")
		time.Sleep(apiservertest.Never)
		c.Expect("Ready", "False", "Progressing", "2/3")

		released.Store(c.App().Generation)
		c.Holds(late, policy)
		c.Expect("Enforced", "True", "AllNodesEnforced", "3/3")
		before = policy
	}
	require.Positive(t, stop())
}

// TestPodOnANewNode: what was enforced everywhere isn't until the node to which a
// pod was scheduled confirms.
func TestPodOnANewNode(t *testing.T) {
	c := newCluster(t)
	here, there := c.NodeName("here"), c.NodeName("there")
	c.Agent(here)
	c.Agent(there)
	c.Pod("a", here)
	c.Report(there)
	c.CreateApp()
	policy := c.Programmed()
	c.Holds(here, policy)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
	c.Pod("b", there)
	c.Expect("Enforced", "False", "Progressing", "1/2")
	time.Sleep(apiservertest.Never)
	c.Expect("Ready", "False", "Progressing", "1/2")
	c.Holds(there, policy)
	c.Expect("Ready", "True", "AllNodesEnforced", "2/2")
}
