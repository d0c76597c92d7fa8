package enforcement

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
	"github.com/moat-dev/moat/controllers/pace"
	"github.com/moat-dev/moat/internal/apiservertest"
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
	node := c.node("one")
	c.agent(node)
	c.pod("a", node)
	c.createApp()
	byHand := c.handWritten("by-hand")
	policy := c.programmed()
	c.holds(node, policy, referenceTo(byHand))
	c.expect("Ready", "True", "AllNodesEnforced", "1/1")
	c.expectPolicy(byHand, "True", "AllNodesEnforced", "1/1")

	apps, policies := &writes{seen: map[string]bool{}}, &writes{seen: map[string]bool{}}
	stop := c.watchApps(func(app *v1alpha1.AppIsolation) { apps.see(app) })
	// What a write happens to find may be what the last one found.
	few := func() bool { return apps.changes() < 3 || policies.changes() < 3 }
	for start := time.Now(); time.Since(start) < 4*pace.Every || few() && time.Since(start) < 20*pace.Every; {
		c.report(node)
		policies.see(c.enforcementOf("by-hand"))
		time.Sleep(rand.N(100 * time.Millisecond))
		c.holds(node, policy, referenceTo(byHand))
		policies.see(c.enforcementOf("by-hand"))
		time.Sleep(rand.N(100 * time.Millisecond))
	}
	c.expect("Ready", "True", "AllNodesEnforced", "1/1")
	c.expectPolicy(byHand, "True", "AllNodesEnforced", "1/1")
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

// TestANewGenerationIsOneWrite: where the nodes confirm at once, nobody reads that
// they are about to.
func TestANewGenerationIsOneWrite(t *testing.T) {
	c := newCluster(t)
	node := c.node("one")
	c.agent(node)
	c.pod("a", node)
	c.createApp()
	c.holds(node, c.programmed())
	c.expect("Ready", "True", "AllNodesEnforced", "1/1")
	var mu sync.Mutex
	var reasons []string
	stop := c.watchApps(func(app *v1alpha1.AppIsolation) {
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
		c.openPort(port)
		c.holds(node, c.programmed())
		if time.Since(start) > patienceFor/2 {
			slow++
		}
		c.expect("Ready", "True", "AllNodesEnforced", "1/1")
	}
	stop()
	confirmed := slices.DeleteFunc(slices.Clone(reasons), func(reason string) bool { return reason != v1alpha1.ReasonAllNodesEnforced })
	require.Len(t, confirmed, edits)
	require.LessOrEqual(t, len(reasons)-edits, slow, "%v", reasons)
}

// TestPolicyOfANamespaceThatIsBeingDeleted: nothing can be stored for it any more,
// and nobody goes on trying.
func TestPolicyOfANamespaceThatIsBeingDeleted(t *testing.T) {
	c := newCluster(t)
	policy := c.handWritten("by-hand")
	stored := c.expectPolicy(policy, "True", "NoSelectedPods", "0/0")
	require.NoError(t, c.admin.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.namespace}}))
	before := failedReconciliations(t)
	require.NoError(t, c.admin.Delete(t.Context(), stored))
	require.Eventually(t, func() bool { return c.enforcementOf("by-hand") == nil }, apiservertest.Eventually, apiservertest.Tick, "it goes")
	time.Sleep(apiservertest.Never)
	require.Nil(t, c.enforcementOf("by-hand"))
	require.Equal(t, before, failedReconciliations(t))
}

// failedReconciliations is of all controllers that ever ran in this process.
func failedReconciliations(t *testing.T) float64 {
	t.Helper()
	families, err := ctrlmetrics.Registry.Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, family := range families {
		if family.GetName() == "controller_runtime_reconcile_errors_total" {
			for _, metric := range family.GetMetric() {
				sum += metric.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// TestAgentsAreAskedByNode: what a policy costs doesn't depend on how many agents
// there are elsewhere.
func TestAgentsAreAskedByNode(t *testing.T) {
	c := &cluster{t: t, admin: server.Admin(t), namespace: server.Namespace(t)}
	here, elsewhere := c.node("here"), c.node("elsewhere")
	c.agent(here)
	c.ready(c.agent(elsewhere), corev1.ConditionFalse)
	s := survey{client: c.cacheClient(apiservertest.OperatorNamespace), agentNamespace: apiservertest.OperatorNamespace}
	for node, want := range map[string]judge.AgentState{here: judge.AgentReady, elsewhere: judge.AgentNotReady, c.node("none"): judge.AgentMissing} {
		state, err := s.agent(t.Context(), node)
		require.NoError(t, err)
		require.Equal(t, want, state, node)
	}
	pod := func(digest string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: digest}, Spec: corev1.PodSpec{NodeName: here}}
	}
	nodes, err := s.nodes(t.Context(), []*corev1.Pod{pod("a"), pod("b")})
	require.NoError(t, err)
	require.Equal(t, []judge.Node{{Name: here, Agent: judge.AgentReady, Pods: []string{"a", "b"}}}, nodes)
}
