// Package enforcementtest is the scene of the tests of the enforcement controllers: a namespace
// of a real API server, with pods on nodes whose agents the test plays.
package enforcementtest

import (
	"context"
	"maps"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/agents"
	"github.com/moat-dev/moat/controllers/appisolation"
	"github.com/moat-dev/moat/controllers/enforcement/judge/judgetest"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// Cluster is a namespace with pods on nodes of its own. The controllers work with the operator's
// rights, and the test plays the nodes' agents.
type Cluster struct {
	T         *testing.T
	Server    *apiservertest.Server
	Admin     client.Client
	Namespace string
}

// Options of a Cluster.
type Options struct {
	// CacheByObject is how the controllers' cache holds objects.
	CacheByObject map[client.Object]cache.ByObject
	// Setup adds the controllers under test. That of AppIsolations' policies runs beside them.
	Setup func(context.Context, manager.Manager) error
	// WriteEvery is the least time between two writes of one status by the controller of
	// AppIsolations' policies; zero: as it is shipped.
	WriteEvery time.Duration
	// Namespaces are further namespaces that the controllers see.
	Namespaces []string
}

// New returns a Cluster on the server, whose controllers run until the test ends.
func New(t *testing.T, server *apiservertest.Server, options Options) *Cluster {
	t.Helper()
	c := Bare(t, server)
	byObject, err := appisolation.CacheByObject()
	require.NoError(t, err)
	maps.Copy(byObject, options.CacheByObject)
	cached := cache.Options{
		ByObject:          byObject,
		DefaultNamespaces: map[string]cache.Config{c.Namespace: {}, apiservertest.OperatorNamespace: {}},
	}
	for _, namespace := range options.Namespaces {
		cached.DefaultNamespaces[namespace] = cache.Config{}
	}
	server.StartManager(t, cached, func(ctx context.Context, mgr manager.Manager) error {
		if err := appisolation.Setup(ctx, mgr, appisolation.Options{StatusEvery: options.WriteEvery}); err != nil {
			return err
		}
		return options.Setup(ctx, mgr)
	})
	return c
}

// Bare returns a Cluster on the server without controllers.
func Bare(t *testing.T, server *apiservertest.Server) *Cluster {
	t.Helper()
	return &Cluster{T: t, Server: server, Admin: server.Admin(t), Namespace: server.Namespace(t)}
}

// CachedClient returns a client that reads from a filled cache of a namespace. index adds the
// indexes of the cache.
func (c *Cluster) CachedClient(namespace string, byObject map[client.Object]cache.ByObject, index func(context.Context, client.FieldIndexer) error) client.Client {
	c.T.Helper()
	var cached client.Client
	options := cache.Options{ByObject: byObject, DefaultNamespaces: map[string]cache.Config{namespace: {}}}
	c.Server.StartManager(c.T, options, func(ctx context.Context, mgr manager.Manager) error {
		cached = mgr.GetClient()
		return index(ctx, mgr.GetFieldIndexer())
	})
	return cached
}

// NodeName makes the name of a node unique among the tests, which share a server.
func (c *Cluster) NodeName(name string) string { return c.Namespace + "-" + name }

// NewApp returns an AppIsolation that closes the pods of role=NAME.
func (c *Cluster) NewApp(name string) *v1alpha1.AppIsolation {
	return &v1alpha1.AppIsolation{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: name},
		Spec: v1alpha1.AppIsolationSpec{
			Selector:   &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"role": v1alpha1.LabelValue(name)}},
			Directions: []v1alpha1.Direction{v1alpha1.DirectionIngress},
		},
	}
}

// CreateApp creates the AppIsolation db.
func (c *Cluster) CreateApp() *v1alpha1.AppIsolation {
	c.T.Helper()
	app := c.NewApp("db")
	require.NoError(c.T, c.Admin.Create(c.T.Context(), app))
	return app
}

// App reads the AppIsolation db.
func (c *Cluster) App() *v1alpha1.AppIsolation { return c.AppNamed("db") }

// AppNamed reads an AppIsolation.
func (c *Cluster) AppNamed(name string) *v1alpha1.AppIsolation {
	c.T.Helper()
	app := &v1alpha1.AppIsolation{}
	require.NoError(c.T, c.Admin.Get(c.T.Context(), client.ObjectKey{Namespace: c.Namespace, Name: name}, app))
	return app
}

// Expect waits for a condition of the present generation and for the NODES
// column, and returns the AppIsolation.
func (c *Cluster) Expect(name string, status metav1.ConditionStatus, reason, summary string) *v1alpha1.AppIsolation {
	c.T.Helper()
	var app *v1alpha1.AppIsolation
	reached := func() bool {
		app = c.App()
		condition := meta.FindStatusCondition(app.Status.Conditions, name)
		return condition != nil && condition.ObservedGeneration == app.Generation &&
			condition.Status == status && condition.Reason == reason && app.Status.Enforcement.Summary == summary
	}
	require.Eventually(c.T, reached, apiservertest.Eventually, apiservertest.Tick,
		"%s %s %s %s", name, status, reason, summary)
	return app
}

// Programmed waits until the policy of the present generation is stored.
func (c *Cluster) Programmed() v1alpha1.PolicyReference {
	c.T.Helper()
	var app *v1alpha1.AppIsolation
	require.Eventually(c.T, func() bool {
		app = c.App()
		condition := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionProgrammed)
		return condition != nil && condition.Status == metav1.ConditionTrue && condition.ObservedGeneration == app.Generation
	}, apiservertest.Eventually, apiservertest.Tick, "programmed")
	return *app.Status.Policy
}

// Pod creates a running pod with the label role=db.
func (c *Cluster) Pod(name, node string, changes ...func(*corev1.Pod)) *corev1.Pod {
	c.T.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: name, Labels: map[string]string{"role": "db"}},
		Spec:       corev1.PodSpec{NodeName: node},
	}
	c.create(pod, changes)
	c.SetPhase(pod, corev1.PodRunning)
	return pod
}

// create makes a pod with a container, which goes at once when it is deleted.
func (c *Cluster) create(pod *corev1.Pod, changes []func(*corev1.Pod)) {
	c.T.Helper()
	pod.Spec.Containers = []corev1.Container{{Name: "main", Image: "image"}}
	pod.Spec.TerminationGracePeriodSeconds = new(int64(0))
	for _, change := range changes {
		change(pod)
	}
	require.NoError(c.T, c.Admin.Create(c.T.Context(), pod))
}

// SetPhase writes the phase of a pod.
func (c *Cluster) SetPhase(pod *corev1.Pod, phase corev1.PodPhase) {
	c.T.Helper()
	pod.Status.Phase = phase
	require.NoError(c.T, c.Admin.Status().Update(c.T.Context(), pod))
}

// Agent creates a ready agent pod on the node.
func (c *Cluster) Agent(node string, changes ...func(*corev1.Pod)) *corev1.Pod {
	c.T.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: apiservertest.OperatorNamespace, Name: "agent-" + node, Labels: agents.Labels()},
		Spec:       corev1.PodSpec{NodeName: node, HostNetwork: true},
	}
	c.create(pod, changes)
	c.SetReady(pod, corev1.ConditionTrue)
	return pod
}

// SetReady writes whether a running pod is Ready.
func (c *Cluster) SetReady(pod *corev1.Pod, status corev1.ConditionStatus) {
	c.T.Helper()
	pod.Status.Phase = corev1.PodRunning
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	require.NoError(c.T, c.Admin.Status().Update(c.T.Context(), pod))
}

// Report writes the node's NodeEnforcement: healthy, with the given changes.
func (c *Cluster) Report(node string, changes ...func(*v1alpha1.NodeEnforcementStatus)) {
	c.T.Helper()
	stored := &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{Name: node}}
	err := c.Admin.Get(c.T.Context(), client.ObjectKeyFromObject(stored), stored)
	if client.IgnoreNotFound(err) == nil && err != nil {
		err = c.Admin.Create(c.T.Context(), stored)
	}
	require.NoError(c.T, err)
	stored.Status = *judgetest.Report(changes...)
	for i := range stored.Status.Conditions {
		stored.Status.Conditions[i].LastTransitionTime = metav1.Now()
	}
	require.NoError(c.T, c.Admin.Status().Update(c.T.Context(), stored))
}

// Holds reports that the node has the policy in its kernel.
func (c *Cluster) Holds(node string, policies ...v1alpha1.PolicyReference) {
	c.T.Helper()
	c.Report(node, func(status *v1alpha1.NodeEnforcementStatus) {
		for _, policy := range policies {
			status.Policies = append(status.Policies, judgetest.EnforcedPolicy(string(policy.UID), policy.Generation))
		}
	})
}

// Member creates the Node, which has booted.
func (c *Cluster) Member(name string) *corev1.Node {
	c.T.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.NodeName(name)}}
	require.NoError(c.T, c.Admin.Create(c.T.Context(), node))
	c.Boot(node, "first")
	return node
}

// Boot writes the id of the boot that the Node is in.
func (c *Cluster) Boot(node *corev1.Node, id string) {
	c.T.Helper()
	node.Status.NodeInfo.BootID = id
	require.NoError(c.T, c.Admin.Status().Update(c.T.Context(), node))
}

// HandWritten stores a policy that closes role=db.
func (c *Cluster) HandWritten(name string) *networkingv1.NetworkPolicy {
	c.T.Helper()
	policy := judgetest.Policy(c.T, name, "{policyTypes: [Ingress]}")
	policy.Namespace = c.Namespace
	require.NoError(c.T, c.Admin.Create(c.T.Context(), &policy))
	return &policy
}

// ReferenceTo returns the reference to a policy as a status has it.
func ReferenceTo(policy *networkingv1.NetworkPolicy) v1alpha1.PolicyReference {
	return v1alpha1.PolicyReference{Name: policy.Name, UID: policy.UID, Generation: policy.Generation}
}

// EnforcementOf returns nil where there is no PolicyEnforcement.
func (c *Cluster) EnforcementOf(name string) *v1alpha1.PolicyEnforcement {
	c.T.Helper()
	stored := &v1alpha1.PolicyEnforcement{}
	err := c.Admin.Get(c.T.Context(), client.ObjectKey{Namespace: c.Namespace, Name: name}, stored)
	if apierrors.IsNotFound(err) {
		return nil
	}
	require.NoError(c.T, err)
	return stored
}

// ExpectPolicy waits for what a PolicyEnforcement says of the present policy.
func (c *Cluster) ExpectPolicy(policy *networkingv1.NetworkPolicy, status metav1.ConditionStatus, reason, summary string) *v1alpha1.PolicyEnforcement {
	c.T.Helper()
	var stored *v1alpha1.PolicyEnforcement
	require.Eventually(c.T, func() bool {
		stored = c.EnforcementOf(policy.Name)
		if stored == nil || stored.Status.PolicyUID != policy.UID {
			return false
		}
		condition := meta.FindStatusCondition(stored.Status.Conditions, v1alpha1.ConditionEnforced)
		return condition != nil && condition.Status == status && condition.Reason == reason &&
			condition.ObservedGeneration == policy.Generation && stored.Status.ObservedGeneration == policy.Generation &&
			stored.Status.Enforcement.Summary == summary
	}, apiservertest.Eventually, apiservertest.Tick, "%s %s %s", status, reason, summary)
	return stored
}

// WatchApps shows every state of the namespace's AppIsolations to look, until
// the returned function is called, which says how many it showed.
func (c *Cluster) WatchApps(look func(*v1alpha1.AppIsolation)) (stop func() int) {
	c.T.Helper()
	watcher, err := client.NewWithWatch(c.Server.AdminConfig(c.T), client.Options{Scheme: apiservertest.NewScheme()})
	require.NoError(c.T, err)
	watch, err := watcher.Watch(c.T.Context(), &v1alpha1.AppIsolationList{}, client.InNamespace(c.Namespace))
	require.NoError(c.T, err)
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

// OpenPort makes the one rule of the AppIsolation open the port to everyone.
func (c *Cluster) OpenPort(port int32) {
	c.T.Helper()
	require.Eventually(c.T, func() bool {
		app := c.App()
		app.Spec.Ingress = []v1alpha1.IngressRule{{
			Name:  "open",
			From:  []v1alpha1.Peer{{Entity: v1alpha1.EntityAnywhere}},
			Ports: []v1alpha1.Port{{Port: new(intstr.FromInt32(port))}},
		}}
		err := c.Admin.Update(c.T.Context(), app)
		require.True(c.T, err == nil || apierrors.IsConflict(err), "editing: %v", err)
		return err == nil
	}, apiservertest.Eventually, apiservertest.Tick, "edit accepted")
}
