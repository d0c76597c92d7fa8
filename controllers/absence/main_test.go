package absence

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/agents"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// apiServer has the admission policies in force: the operator of these tests has the
// rights that it is shipped with, and no others.
var apiServer = apiservertest.Server{Admission: true}

func TestMain(m *testing.M) {
	os.Exit(apiServer.Run(m))
}

// soon is the patience of these tests. Times of the API are whole seconds.
const soon = 2 * time.Second

// foreign is another program's taint.
var foreign = corev1.Taint{Key: "example.com/own", Value: "1", Effect: corev1.TaintEffectNoSchedule}

// scene is a Moat in a namespace of its own, and a test that plays its agents and the
// control plane. Nodes belong to no namespace, so that one scene is there at a time.
type scene struct {
	t         *testing.T
	admin     client.Client
	namespace string
	installed []client.Object
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, admin: apiServer.Admin(t), namespace: apiServer.Namespace(t)}
	s.allow()
	labels := agents.Labels()
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: labels},
		Spec: corev1.PodSpec{
			NodeSelector: map[string]string{corev1.LabelOSStable: "linux"},
			Tolerations:  []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:   []corev1.Container{{Name: "moat", Image: "none"}},
		},
	}
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: s.namespace, Name: name} }
	selector := &metav1.LabelSelector{MatchLabels: labels}
	s.installed = []client.Object{
		&corev1.ConfigMap{ObjectMeta: meta(v1alpha1.ReleaseMarker)},
		&appsv1.DaemonSet{ObjectMeta: meta(agents.DaemonSetName), Spec: appsv1.DaemonSetSpec{Selector: selector, Template: template}},
		&appsv1.Deployment{ObjectMeta: meta(deploymentName), Spec: appsv1.DeploymentSpec{Selector: selector, Template: template}},
	}
	for _, object := range s.installed {
		require.NoError(t, s.admin.Create(t.Context(), object))
	}
	return s
}

// allow gives the operator in the scene's namespace what config gives it in Moat's.
func (s *scene) allow() {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "config", "rbac", "operator_release_role.yaml"))
	require.NoError(s.t, err)
	first, second, _ := strings.Cut(string(text), "\n---\n")
	var role rbacv1.Role
	var binding rbacv1.RoleBinding
	require.NoError(s.t, yaml.UnmarshalStrict([]byte(first), &role))
	require.NoError(s.t, yaml.UnmarshalStrict([]byte(second), &binding))
	role.Namespace, binding.Namespace = s.namespace, s.namespace
	require.NoError(s.t, s.admin.Create(s.t.Context(), &role))
	require.NoError(s.t, s.admin.Create(s.t.Context(), &binding))
}

// operate runs an operator and returns what stops it, as SIGTERM does. One that
// stands by waits for a leader that never goes.
func (s *scene) operate(options Options, change ...func(*manager.Options)) (stop func()) {
	s.t.Helper()
	options.Namespace, options.patience = s.namespace, soon
	byObject := CacheByObject(s.namespace)
	held := manager.Options{
		Scheme:     apiservertest.NewScheme(),
		Cache:      cache.Options{ByObject: byObject},
		Metrics:    server.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
	}
	for _, c := range change {
		c(&held)
	}
	mgr, err := manager.New(apiServer.Operator(s.t), held)
	require.NoError(s.t, err)
	require.NoError(s.t, Setup(mgr, options))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stopped := false
	stop = func() {
		cancel()
		if !stopped {
			stopped = true
			require.NoError(s.t, <-ended)
		}
	}
	s.t.Cleanup(stop)
	require.True(s.t, mgr.GetCache().WaitForCacheSync(ctx))
	return stop
}

// standBy has the operator wait for the lead.
func (s *scene) standBy(options *manager.Options) {
	options.LeaderElection = true
	options.LeaderElectionID = "moat-operator"
	options.LeaderElectionNamespace = apiservertest.OperatorNamespace
}

// member is a node with its agent, both in perfect health.
type member struct {
	scene  *scene
	node   *corev1.Node
	pod    *corev1.Pod
	report *v1alpha1.NodeEnforcement
	agent  client.Client
}

func (s *scene) member(name string, change ...func(*corev1.Node)) *member {
	s.t.Helper()
	m := &member{scene: s, node: &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: s.namespace + "-" + name, Labels: map[string]string{corev1.LabelOSStable: "linux"}},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{foreign}},
	}}
	for _, c := range change {
		c(m.node)
	}
	require.NoError(s.t, s.admin.Create(s.t.Context(), m.node))
	s.t.Cleanup(func() {
		_ = s.admin.Delete(context.Background(), m.node)
		_ = s.admin.Delete(context.Background(), m.pod, client.GracePeriodSeconds(0))
	})
	m.setNodeReady(corev1.ConditionTrue)
	// A new Node is tainted as not ready, until the control plane sees that it is.
	node := m.now()
	node.Spec.Taints = []corev1.Taint{foreign}
	require.NoError(s.t, s.admin.Update(s.t.Context(), node))
	m.start()
	m.agent = apiservertest.ClientOf(s.t, apiServer.Agent(s.t, m.node.Name))
	m.report = &v1alpha1.NodeEnforcement{ObjectMeta: metav1.ObjectMeta{
		Name:            m.node.Name,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: m.node.Name, UID: m.node.UID}},
	}}
	require.NoError(s.t, m.agent.Create(s.t.Context(), m.report))
	s.t.Cleanup(func() { _ = s.admin.Delete(context.Background(), m.report) })
	m.say(v1alpha1.NodeConditionPodStartGuarded, metav1.ConditionTrue)
	return m
}

// start makes a Ready agent pod.
func (m *member) start() {
	m.scene.t.Helper()
	m.pod = &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: m.scene.namespace, GenerateName: "moat-agent-", Labels: maps.Clone(agents.Labels())},
		Spec:       corev1.PodSpec{NodeName: m.node.Name, HostNetwork: true, Containers: []corev1.Container{{Name: "agent", Image: "none"}}},
	}
	require.NoError(m.scene.t, m.scene.admin.Create(m.scene.t.Context(), m.pod))
	m.setAgentReady(corev1.ConditionTrue)
}

func (m *member) end() {
	m.scene.t.Helper()
	require.NoError(m.scene.t, m.scene.admin.Delete(m.scene.t.Context(), m.pod, client.GracePeriodSeconds(0)))
}

func (m *member) setAgentReady(status corev1.ConditionStatus) {
	m.scene.t.Helper()
	m.pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}
	require.NoError(m.scene.t, m.scene.admin.Status().Update(m.scene.t.Context(), m.pod))
}

func (m *member) setNodeReady(status corev1.ConditionStatus) {
	m.scene.t.Helper()
	fresh := m.now()
	fresh.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: status}}
	require.NoError(m.scene.t, m.scene.admin.Status().Update(m.scene.t.Context(), fresh))
}

// say is the agent's report of one condition.
func (m *member) say(condition string, status metav1.ConditionStatus) {
	m.scene.t.Helper()
	require.NoError(m.scene.t, m.agent.Get(m.scene.t.Context(), client.ObjectKeyFromObject(m.report), m.report))
	m.report.Status.Conditions = append(m.report.Status.Conditions, metav1.Condition{
		Type: condition, Status: status, Reason: "Test", LastTransitionTime: metav1.Now(),
	})
	require.NoError(m.scene.t, m.agent.Status().Update(m.scene.t.Context(), m.report))
}

// now returns the Node as it is stored.
func (m *member) now() *corev1.Node {
	m.scene.t.Helper()
	node := &corev1.Node{}
	require.NoError(m.scene.t, m.scene.admin.Get(context.Background(), client.ObjectKeyFromObject(m.node), node))
	return node
}

// taint puts the operator's taint, as an operator of before may have.
func (m *member) taint() {
	m.scene.t.Helper()
	node := m.now()
	node.Spec.Taints = append(node.Spec.Taints, taint)
	require.NoError(m.scene.t, m.scene.admin.Update(m.scene.t.Context(), node))
}

// state returns what the operator says of the agent.
func (m *member) state() v1alpha1.AgentState {
	m.scene.t.Helper()
	stored := &v1alpha1.NodeEnforcement{}
	require.NoError(m.scene.t, m.scene.admin.Get(context.Background(), client.ObjectKeyFromObject(m.report), stored))
	if stored.Status.Agent == nil {
		return ""
	}
	return stored.Status.Agent.State
}

func (s *scene) eventually(condition func() bool, message string, args ...any) {
	s.t.Helper()
	require.Eventually(s.t, condition, apiservertest.Eventually, apiservertest.Tick, append([]any{message}, args...)...)
}

// never watches for longer than the patience of the operator.
func (s *scene) never(condition func() bool, message string) {
	s.t.Helper()
	require.Never(s.t, condition, soon+passEvery+time.Second, apiservertest.Tick, message)
}

// countTainted counts the nodes that have the taint.
func countTainted(members []*member) int {
	count := 0
	for _, m := range members {
		if isTainted(m.now()) {
			count++
		}
	}
	return count
}

// told says whether an event of the reason is about the Node.
func (m *member) told(reason string) bool {
	m.scene.t.Helper()
	var list eventsv1.EventList
	require.NoError(m.scene.t, m.scene.admin.List(context.Background(), &list, client.InNamespace(metav1.NamespaceDefault)))
	for _, e := range list.Items {
		if e.Reason == reason && e.Regarding.Kind == "Node" && e.Regarding.UID == m.node.UID {
			return true
		}
	}
	return false
}
