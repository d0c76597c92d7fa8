package enforcement

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
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
// looks at every state of the object that a watcher can see: at none of them may
// `kubectl wait` return while the kernel has another port than the spec.
func TestEnforcedSpeaksOfThePresentGeneration(t *testing.T) {
	c := newCluster(t)
	node := c.node("one")
	c.agent(node)
	c.pod("a", node)
	held := &kernel{ports: map[int64]int32{}}
	stop := c.watchApps(func(app *v1alpha1.AppIsolation) {
		for _, name := range []string{"Enforced", "Ready"} {
			if kubectlWouldStopWaiting(app, name) && portOf(app) != held.port(app.Status.Policy.Generation) {
				t.Errorf("%s is True for generation %d with port %d, and the kernel has port %d", name, app.Generation, portOf(app), held.port(app.Status.Policy.Generation))
			}
		}
	})
	c.createApp()
	for port := int32(1); port <= 15; port++ {
		c.openPort(port)
		policy := c.programmed()
		held.hold(policy.Generation, port)
		c.holds(node, policy)
		c.expect("Enforced", "True", "AllNodesEnforced", "1/1")
	}
	require.Positive(t, stop())
}

// TestDriftIsNotEnforced: while the stored policy isn't what the AppIsolation
// says, a node that follows it doesn't count as current.
func TestDriftIsNotEnforced(t *testing.T) {
	c := newCluster(t)
	node := c.node("one")
	c.agent(node)
	c.pod("a", node)
	c.createApp()
	before := c.programmed()
	c.holds(node, before)
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")

	policy := &networkingv1.NetworkPolicy{}
	require.NoError(t, c.admin.Get(t.Context(), client.ObjectKey{Namespace: c.namespace, Name: before.Name}, policy))
	policy.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
	require.NoError(t, c.admin.Update(t.Context(), policy))
	c.holds(node, v1alpha1.PolicyReference{UID: policy.UID, Generation: policy.Generation})
	c.expect("Enforced", "False", "Progressing", "0/1")
	require.Eventually(t, func() bool { return c.programmed().Generation == before.Generation+2 },
		apiservertest.Eventually, apiservertest.Tick, "the drift and its repair are a generation each")
	c.holds(node, c.programmed())
	c.expect("Enforced", "True", "AllNodesEnforced", "1/1")
}

// watchApps shows every state of the namespace's AppIsolations to look, until
// the returned function is called, which says how many it showed.
func (c *cluster) watchApps(look func(*v1alpha1.AppIsolation)) (stop func() int) {
	c.t.Helper()
	watcher, err := client.NewWithWatch(server.AdminConfig(c.t), client.Options{Scheme: apiservertest.NewScheme()})
	require.NoError(c.t, err)
	watch, err := watcher.Watch(c.t.Context(), &v1alpha1.AppIsolationList{}, client.InNamespace(c.namespace))
	require.NoError(c.t, err)
	count, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		for event := range watch.ResultChan() {
			if app, ok := event.Object.(*v1alpha1.AppIsolation); ok {
				count++
				look(app)
			}
		}
	}()
	return func() int {
		watch.Stop()
		<-done
		return count
	}
}

// openPort makes the one rule of the AppIsolation open the port to everyone.
func (c *cluster) openPort(port int32) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		app := c.app()
		app.Spec.Ingress = []v1alpha1.IngressRule{{
			Name:  "open",
			From:  []v1alpha1.Peer{{Entity: v1alpha1.EntityAnywhere}},
			Ports: []v1alpha1.Port{{Port: new(intstr.FromInt32(port))}},
		}}
		err := c.admin.Update(c.t.Context(), app)
		require.True(c.t, err == nil || apierrors.IsConflict(err), "editing: %v", err)
		return err == nil
	}, apiservertest.Eventually, apiservertest.Tick, "edit accepted")
}

func portOf(app *v1alpha1.AppIsolation) int32 {
	if len(app.Spec.Ingress) == 0 {
		return 0
	}
	return app.Spec.Ingress[0].Ports[0].Port.IntVal
}
