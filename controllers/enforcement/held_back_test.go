package enforcement

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// TestHeldBackAgentIsNeverEnforced holds one of three agents back at each
// generation, lets it report everything but that generation, and looks at every
// state of the object that a watcher can see.
func TestHeldBackAgentIsNeverEnforced(t *testing.T) {
	c := newCluster(t)
	late := c.node("late")
	nodes := []string{c.node("one"), c.node("two"), late}
	for _, node := range nodes {
		c.agent(node)
		c.pod("on-"+node, node)
	}
	// released is the generation of the AppIsolation up to which the late node has
	// been let go on.
	var released atomic.Int64
	stop := c.watchApps(func(app *v1alpha1.AppIsolation) {
		for _, name := range []string{"Enforced", "Ready"} {
			if kubectlWouldStopWaiting(app, name) && app.Generation > released.Load() {
				t.Errorf("%s is True for generation %d: %+v", name, app.Generation, app.Status.Enforcement)
			}
		}
	})
	before := v1alpha1.PolicyReference{UID: "none", Generation: 1}
	c.createApp()
	for port := int32(1); port <= 4; port++ {
		c.openPort(port)
		policy := c.programmed()
		c.holds(late, before, v1alpha1.PolicyReference{UID: "another", Generation: policy.Generation})
		for _, node := range nodes[:2] {
			c.holds(node, policy)
		}
		c.expect("Enforced", "False", "Progressing", "2/3")
		time.Sleep(apiservertest.Never)
		c.expect("Ready", "False", "Progressing", "2/3")

		released.Store(c.app().Generation)
		c.holds(late, policy)
		c.expect("Enforced", "True", "AllNodesEnforced", "3/3")
		before = policy
	}
	require.Positive(t, stop())
}

// TestPodOnANewNode: what was enforced everywhere isn't until the node to which a
// pod was scheduled confirms.
func TestPodOnANewNode(t *testing.T) {
	c := newCluster(t)
	here, there := c.node("here"), c.node("there")
	c.agent(here)
	c.agent(there)
	c.pod("a", here)
	c.report(there)
	c.createApp()
	policy := c.programmed()
	c.holds(here, policy)
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")
	c.pod("b", there)
	c.expect("Enforced", "False", "Progressing", "1/2")
	time.Sleep(apiservertest.Never)
	c.expect("Ready", "False", "Progressing", "1/2")
	c.holds(there, policy)
	c.expect("Ready", "True", "AllNodesEnforced", "2/2")
}
