package status

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/test/cluster"
)

const (
	// enforcedWithin is the promise for a change on a quiet cluster.
	enforcedWithin = 3 * time.Second
	// staleWithin is the promise for an agent that dies or hangs.
	staleWithin = time.Minute
	// eventually is long enough for what has no promise, on a busy machine.
	eventually = time.Minute
	poll       = 20 * time.Millisecond
)

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// scene is a cluster of two nodes with a pod of role=db on each.
type scene struct {
	*cluster.Cluster
	t *testing.T
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{Cluster: cluster.New(t, cluster.Options{Nodes: 2, Primary: ruleset.IPv4}), t: t}
	s.AddPod(t, s.Nodes[0], pod("one"))
	s.StartAgents(t, iptables.NFT)
	s.RunAgentPods(t)
	s.StartOperator(t)
	return s
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name, Labels: map[string]string{"role": "db"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: "none"}}},
	}
}

func newApp(name string) *v1alpha1.AppIsolation {
	return &v1alpha1.AppIsolation{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: name},
		Spec: v1alpha1.AppIsolationSpec{
			Selector:   &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"role": "db"}},
			Directions: []v1alpha1.Direction{v1alpha1.DirectionIngress},
		},
	}
}

func (s *scene) app(name string) *v1alpha1.AppIsolation {
	s.t.Helper()
	app := &v1alpha1.AppIsolation{}
	require.NoError(s.t, s.Client.Get(s.t.Context(), client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: name}, app))
	return app
}

// says reports whether Enforced of the present generation is so.
func (s *scene) says(name string, status metav1.ConditionStatus, reason, summary string) bool {
	s.t.Helper()
	app := s.app(name)
	enforced := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionEnforced)
	return enforced != nil && enforced.ObservedGeneration == app.Generation &&
		enforced.Status == status && enforced.Reason == reason && app.Status.Enforcement.Summary == summary
}

// await waits until Enforced of the present generation is so, and returns how long
// that took.
func (s *scene) await(within time.Duration, name string, status metav1.ConditionStatus, reason, summary string) time.Duration {
	s.t.Helper()
	start := time.Now()
	require.Eventually(s.t, func() bool { return s.says(name, status, reason, summary) }, within, poll,
		"Enforced %s %s %s; %+v", status, reason, summary, lazyStatus{s, name})
	return time.Since(start)
}

// lazyStatus is the status as it is when it is printed.
type lazyStatus struct {
	scene *scene
	name  string
}

func (l lazyStatus) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "%+v", l.scene.app(l.name).Status)
}

// TestKubectlWaitReturnsSoon applies and edits AppIsolations and waits for them as
// people do: median of some changes, each on a cluster that is quiet.
func TestKubectlWaitReturnsSoon(t *testing.T) {
	s := newScene(t)
	kubeconfig := s.Kubeconfig(t, "admin", "system:masters")
	kubectl := filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl")
	require.FileExists(t, kubectl, "KUBEBUILDER_ASSETS lacks kubectl: run make test")
	wait := func(start time.Time, name string) time.Duration {
		output, err := exec.Command(kubectl, "--kubeconfig="+kubeconfig, "wait", "--for=condition=Enforced", "--timeout=60s", "appisolation/"+name).CombinedOutput()
		require.NoError(t, err, "%s", output)
		app := s.app(name)
		require.Equal(t, "1/1", app.Status.Enforcement.Summary)
		require.Equal(t, app.Generation, meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionEnforced).ObservedGeneration)
		return time.Since(start)
	}
	var took []time.Duration
	for i := range 3 {
		time.Sleep(enforcedWithin) // The agent's last report is some seconds ago.
		app, start := newApp(fmt.Sprint("db-", i)), time.Now()
		require.NoError(t, s.Client.Create(t.Context(), app))
		took = append(took, wait(start, app.Name))

		time.Sleep(enforcedWithin)
		app, start = s.app(app.Name), time.Now()
		app.Spec.Ingress = []v1alpha1.IngressRule{{
			Name: "web", From: []v1alpha1.Peer{{Entity: v1alpha1.EntityAnywhere}}, Ports: []v1alpha1.Port{{Port: new(intstr.FromInt32(80))}},
		}}
		require.NoError(t, s.Client.Update(t.Context(), app))
		took = append(took, wait(start, app.Name))
	}
	slices.Sort(took)
	t.Logf("kubectl wait returned after %v", took)
	require.LessOrEqual(t, took[len(took)/2], enforcedWithin, "%v", took)
}

// TestADeadAgentIsStale: nobody corrects the report of an agent that is gone or
// hangs, so it proves nothing; when it is back it does again.
func TestADeadAgentIsStale(t *testing.T) {
	s := newScene(t)
	require.NoError(t, s.Client.Create(t.Context(), newApp("db")))
	s.await(eventually, "db", metav1.ConditionTrue, v1alpha1.ReasonAllNodesEnforced, "1/1")
	node := s.Nodes[0]

	node.Agent.Kill(t)
	t.Logf("a dead agent is stale after %s", s.await(staleWithin, "db", metav1.ConditionUnknown, v1alpha1.ReasonAgentStale, "0/1"))
	node.StartAgent(t, iptables.NFT)
	s.await(eventually, "db", metav1.ConditionTrue, v1alpha1.ReasonAllNodesEnforced, "1/1")

	require.NoError(t, syscall.Kill(node.Agent.Pid(), syscall.SIGSTOP))
	t.Logf("an agent that hangs is stale after %s", s.await(staleWithin, "db", metav1.ConditionUnknown, v1alpha1.ReasonAgentStale, "0/1"))
	require.NoError(t, syscall.Kill(node.Agent.Pid(), syscall.SIGCONT))
	s.await(eventually, "db", metav1.ConditionTrue, v1alpha1.ReasonAllNodesEnforced, "1/1")
}

// TestAPodOnANewNodeIsProgressing: a pod that is scheduled to another node makes an
// AppIsolation Progressing until that node's agent confirms, which is stopped in
// between. Nothing that a watcher can see says True meanwhile. So does a second pod on it.
func TestAPodOnANewNodeIsProgressing(t *testing.T) {
	s := newScene(t)
	require.NoError(t, s.Client.Create(t.Context(), newApp("db")))
	s.await(eventually, "db", metav1.ConditionTrue, v1alpha1.ReasonAllNodesEnforced, "1/1")
	node := s.Nodes[1]
	require.NoError(t, syscall.Kill(node.Agent.Pid(), syscall.SIGSTOP))
	s.AddPod(t, node, pod("two"))
	s.await(eventually, "db", metav1.ConditionFalse, v1alpha1.ReasonProgressing, "1/2")

	var mu sync.Mutex
	held := true
	stop := s.watch(func(app *v1alpha1.AppIsolation) {
		mu.Lock()
		defer mu.Unlock()
		if held && meta.IsStatusConditionTrue(app.Status.Conditions, v1alpha1.ConditionEnforced) {
			t.Errorf("Enforced is True while the node's agent can't have confirmed: %+v", app.Status.Enforcement)
		}
	})
	time.Sleep(2 * time.Second)
	mu.Lock()
	held = false
	mu.Unlock()
	require.NoError(t, syscall.Kill(node.Agent.Pid(), syscall.SIGCONT))
	s.await(eventually, "db", metav1.ConditionTrue, v1alpha1.ReasonAllNodesEnforced, "2/2")
	stop()

	// The policy is in force on the node, but for another pod of it the agent hasn't seen yet.
	require.NoError(t, syscall.Kill(node.Agent.Pid(), syscall.SIGSTOP))
	s.AddPod(t, node, pod("three"))
	s.await(eventually, "db", metav1.ConditionFalse, v1alpha1.ReasonProgressing, "1/2")
	require.NoError(t, syscall.Kill(node.Agent.Pid(), syscall.SIGCONT))
	s.await(eventually, "db", metav1.ConditionTrue, v1alpha1.ReasonAllNodesEnforced, "2/2")
}

// watch shows every state of the AppIsolations to look until stop is called.
func (s *scene) watch(look func(*v1alpha1.AppIsolation)) (stop func()) {
	s.t.Helper()
	watcher, err := client.NewWithWatch(s.Config(s.t), client.Options{Scheme: s.Client.Scheme()})
	require.NoError(s.t, err)
	watch, err := watcher.Watch(s.t.Context(), &v1alpha1.AppIsolationList{})
	require.NoError(s.t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for event := range watch.ResultChan() {
			if app, ok := event.Object.(*v1alpha1.AppIsolation); ok {
				look(app)
			}
		}
	}()
	return func() {
		watch.Stop()
		<-done
	}
}
