package appstatus

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// kernel is what the test's node has in force: the port that each generation of
// the policy opens, written before the node reports the generation.
type kernel struct {
	mu    sync.Mutex
	ports map[int64]int32
}

func (k *kernel) hold(generation int64, port int32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ports[generation] = port
}

func (k *kernel) port(generation int64) int32 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ports[generation]
}

// kubectlWouldStopWaiting is the rule of `kubectl wait --for=condition=NAME`: a
// condition of an older generation doesn't count.
func kubectlWouldStopWaiting(app *v1alpha1.AppIsolation, name string) bool {
	condition := meta.FindStatusCondition(app.Status.Conditions, name)
	return condition != nil && condition.Status == metav1.ConditionTrue && condition.ObservedGeneration >= app.Generation
}

// TestEnforcedSpeaksOfThePresentGeneration edits the port again and again and
// checks every state of the object that a watcher can see: at none of them may
// `kubectl wait` return while the kernel has another port than the spec.
func TestEnforcedSpeaksOfThePresentGeneration(t *testing.T) {
	c := newCluster(t)
	node := c.NodeName("one")
	c.Agent(node)
	c.Pod("a", node)
	held := &kernel{ports: map[int64]int32{}}
	stop := c.WatchApps(func(app *v1alpha1.AppIsolation) {
		for _, name := range []string{"Enforced", "Ready"} {
			if kubectlWouldStopWaiting(app, name) && portOf(app) != held.port(app.Status.Policy.Generation) {
				t.Errorf("%s is True for generation %d with port %d, and the kernel has port %d", name, app.Generation, portOf(app), held.port(app.Status.Policy.Generation))
			}
		}
	})
	c.CreateApp()
	for port := int32(1); port <= 15; port++ {
		c.OpenPort(port)
		policy := c.Programmed()
		held.hold(policy.Generation, port)
		c.Holds(node, policy)
		c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
	}
	require.Positive(t, stop())
}

// TestDriftIsNotEnforced: while the stored policy isn't what the AppIsolation
// says, a node that follows it doesn't count as current.
func TestDriftIsNotEnforced(t *testing.T) {
	c := newCluster(t)
	node := c.NodeName("one")
	c.Agent(node)
	c.Pod("a", node)
	c.CreateApp()
	before := c.Programmed()
	c.Holds(node, before)
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")

	policy := &networkingv1.NetworkPolicy{}
	require.NoError(t, c.Admin.Get(t.Context(), client.ObjectKey{Namespace: c.Namespace, Name: before.Name}, policy))
	policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
	require.NoError(t, c.Admin.Update(t.Context(), policy))
	c.Holds(node, v1alpha1.PolicyReference{UID: policy.UID, Generation: policy.Generation})
	c.Expect("Enforced", "False", "Progressing", "0/1")
	require.Eventually(t, func() bool { return c.Programmed().Generation == before.Generation+2 },
		apiservertest.Eventually, apiservertest.Tick, "the drift and its repair are a generation each")
	c.Holds(node, c.Programmed())
	c.Expect("Enforced", "True", "AllNodesEnforced", "1/1")
}

func portOf(app *v1alpha1.AppIsolation) int32 {
	if len(app.Spec.Ingress) == 0 {
		return 0
	}
	return app.Spec.Ingress[0].Ports[0].Port.IntVal
}
