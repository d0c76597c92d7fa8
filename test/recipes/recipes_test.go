package recipes

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/nodetest"
	"github.com/moat-dev/moat/dataplane/ruleset"
	testcluster "github.com/moat-dev/moat/test/cluster"
)

// Times of one probe.
const (
	// deniedWithin is how long a packet that must not pass has to come back.
	deniedWithin = 300 * time.Millisecond
	// allowedWithin is how long one that must pass has, on a busy machine.
	allowedWithin = 2 * time.Second
	attempts      = 3
	// atOnce is how many probes run side by side.
	atOnce = 128
)

const folder = "../../config/samples/recipes"

// within is long enough for a reaction on a busy machine.
const within = 30 * time.Second

func TestMain(m *testing.M) {
	log.SetLogger(logr.Discard())
	os.Exit(m.Run())
}

// TestTheTableHasEveryRecipe: no file is without its row.
func TestTheTableHasEveryRecipe(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	require.NoError(t, err)
	var stored, rows []string
	for _, file := range files {
		stored = append(stored, strings.TrimSuffix(filepath.Base(file), ".yaml"))
	}
	for _, r := range recipes {
		rows = append(rows, r.file)
	}
	require.NotEmpty(t, stored)
	require.ElementsMatch(t, stored, rows)
}

// TestRecipes applies each recipe, waits until its AppIsolation says that it is
// enforced, and sends.
func TestRecipes(t *testing.T) {
	s := newScene(t)
	require.Empty(t, s.wrong(nil, flowsOf([]recipe{{closes: own}})), "without a recipe everyone reaches everyone")
	for _, r := range recipes {
		t.Run(r.file, func(t *testing.T) { s.try(t, r) })
	}
	for _, files := range together {
		var applied []recipe
		for _, file := range files {
			applied = append(applied, recipes[slices.IndexFunc(recipes, func(r recipe) bool { return r.file == file })])
		}
		t.Run(strings.Join(files, " and "), func(t *testing.T) { s.try(t, applied...) })
	}
}

// scene is a cluster of two nodes on which everyone runs.
type scene struct {
	cluster *testcluster.Cluster
	hosts   map[string]*nodetest.Host
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{cluster: testcluster.New(t, testcluster.Options{Nodes: 2, Primary: ruleset.IPv4}), hosts: map[string]*nodetest.Host{}}
	for name, labels := range namespaceLabels {
		s.cluster.Namespace(t, name, labels)
	}
	for i, name := range cluster {
		s.hosts[name] = s.cluster.AddPod(t, s.cluster.Nodes[i%2], newPod(name)).Host
	}
	world := s.cluster.World
	s.hosts["world"] = world
	for _, at := range allPorts {
		if at.network == "udp" {
			world.ServeUDP(t, at.number)
		} else {
			world.ServeTCP(t, at.number)
		}
	}
	s.cluster.StartAgents(t, iptables.NFT)
	s.cluster.RunAgentPods(t)
	s.cluster.StartOperator(t)
	return s
}

func newPod(name string) *corev1.Pod {
	namespace, short, found := strings.Cut(name, "/")
	if !found {
		namespace, short = metav1.NamespaceDefault, name
	}
	container := corev1.Container{Name: "server", Image: "none"}
	for i, at := range allPorts {
		container.Ports = append(container.Ports, corev1.ContainerPort{
			Name: fmt.Sprint("port-", i), ContainerPort: int32(at.number), Protocol: corev1.Protocol(strings.ToUpper(at.network)),
		})
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: short, Labels: podLabels[name]},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{container}},
	}
}

// try applies recipes, compares what passes with the table, and takes them away.
func (s *scene) try(t *testing.T, applied ...recipe) {
	t.Helper()
	var apps []*v1alpha1.AppIsolation
	for _, r := range applied {
		app := read(t, r.file)
		require.NoError(t, s.cluster.Client.Create(t.Context(), app, client.FieldValidation("Strict")))
		apps = append(apps, app)
	}
	for _, app := range apps {
		s.awaitEnforced(t, app)
	}
	flows := flowsOf(applied)
	require.Empty(t, s.wrong(applied, flows), "of %d flows", len(flows))
	for _, app := range apps {
		s.remove(t, app)
	}
}

func read(t *testing.T, file string) *v1alpha1.AppIsolation {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(folder, file+".yaml"))
	require.NoError(t, err)
	app := &v1alpha1.AppIsolation{}
	require.NoError(t, yaml.UnmarshalStrict(text, app))
	return app
}

func (s *scene) awaitEnforced(t *testing.T, app *v1alpha1.AppIsolation) {
	t.Helper()
	require.Eventually(t, func() bool {
		require.NoError(t, s.cluster.Client.Get(t.Context(), client.ObjectKeyFromObject(app), app))
		enforced := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionEnforced)
		return enforced != nil && enforced.Status == metav1.ConditionTrue && enforced.ObservedGeneration == app.Generation
	}, within, 20*time.Millisecond, "%s isn't enforced", app.Name)
	require.NotEqual(t, "0/0", app.Status.Enforcement.Summary, "%s selects no pod", app.Name)
}

// remove has the operator remove the policy, since no garbage collector runs here.
// The agents hear of that before they hear of the next recipe.
func (s *scene) remove(t *testing.T, app *v1alpha1.AppIsolation) {
	t.Helper()
	policy := client.ObjectKey{Namespace: app.Namespace, Name: app.Status.Policy.Name}
	require.NoError(t, s.cluster.Client.Patch(t.Context(), app, client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"mode":"Disabled"}}`))))
	require.Eventually(t, func() bool {
		return apierrors.IsNotFound(s.cluster.Client.Get(t.Context(), policy, &networkingv1.NetworkPolicy{}))
	}, within, 20*time.Millisecond, "policy %s isn't removed", policy)
	require.NoError(t, s.cluster.Client.Delete(t.Context(), app))
}

// wrong sends all flows and returns those that don't do what the recipes say.
func (s *scene) wrong(applied []recipe, flows []flow) []string {
	var mu sync.Mutex
	var wrong []string
	var group sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for _, f := range flows {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			want := allows(applied, f)
			if got := s.passes(f, want); got != want {
				mu.Lock()
				defer mu.Unlock()
				wrong = append(wrong, fmt.Sprintf("%s → %s %s/%d: passes %t, want %t", f.from, f.to, f.port.network, f.port.number, got, want))
			}
		})
	}
	group.Wait()
	slices.Sort(wrong)
	return wrong
}

// passes sends a flow. A busy machine may lose what is allowed, and so that is sent
// some times; what is denied must not pass the first time.
func (s *scene) passes(f flow, allowed bool) bool {
	from, to := s.hosts[f.from], s.hosts[f.to].Addrs[f.port.family]
	if !allowed {
		return send(from, to, f.port, deniedWithin)
	}
	for range attempts {
		if send(from, to, f.port, allowedWithin) {
			return true
		}
	}
	return false
}

func send(from *nodetest.Host, to netip.Addr, at port, within time.Duration) bool {
	if at.network == "udp" {
		return from.UDP(to, at.number, within)
	}
	return from.TCP(to, at.number, within)
}
