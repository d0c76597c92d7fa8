package charts_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// cluster is an API server that has only what Helm put there.
type cluster struct {
	t          *testing.T
	admin      client.Client
	kubeconfig string
}

func newCluster(t *testing.T) cluster {
	t.Helper()
	c := cluster{t, releases.Admin(t), filepath.Join(t.TempDir(), "kubeconfig")}
	admin := releases.AdminConfig(t)
	config := clientcmdapi.NewConfig()
	config.Clusters["test"] = &clientcmdapi.Cluster{Server: admin.Host, CertificateAuthorityData: admin.CAData}
	config.AuthInfos["admin"] = &clientcmdapi.AuthInfo{ClientCertificateData: admin.CertData, ClientKeyData: admin.KeyData}
	config.Contexts["test"] = &clientcmdapi.Context{Cluster: "test", AuthInfo: "admin"}
	config.CurrentContext = "test"
	require.NoError(t, clientcmd.WriteToFile(*config, c.kubeconfig))
	// What the test kit has put there for other tests, in its own name.
	kit := &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "moat-agent-reports"}}
	require.NoError(t, client.IgnoreNotFound(c.admin.Delete(t.Context(), kit)))
	return c
}

func (c cluster) helm(args ...string) error {
	c.t.Helper()
	_, err := helm(c.t, append(args, "--kubeconfig", c.kubeconfig)...)
	return err
}

// install installs a release, and takes over what is left of an earlier one.
func (c cluster) install(name, namespace string) {
	c.t.Helper()
	c.t.Cleanup(func() {
		require.NoError(c.t, c.helm("uninstall", name, "-n", namespace, "--no-hooks", "--ignore-not-found"))
	})
	require.NoError(c.t, c.helm("install", name, chart, "-n", namespace, "--create-namespace", "--take-ownership"))
}

func (c cluster) exists(object client.Object, namespace, name string) bool {
	c.t.Helper()
	err := c.admin.Get(c.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, object)
	require.NoError(c.t, client.IgnoreNotFound(err))
	return !apierrors.IsNotFound(err)
}

// agentIs stores a node's report, if there is none, and lets the operator say of its agent
// what it says of one in that state; "" is nothing.
func (c cluster) agentIs(node string, state v1alpha1.AgentState) {
	c.t.Helper()
	stored := report(node)
	if !c.exists(stored, "", node) {
		config := rest.CopyConfig(releases.AdminConfig(c.t))
		config.Impersonate = rest.ImpersonationConfig{
			UserName: "system:serviceaccount:" + namespace + ":moat-agent",
			Extra:    map[string][]string{"authentication.kubernetes.io/node-name": {node}},
		}
		agent := apiservertest.ClientOf(c.t, config)
		require.NoError(c.t, agent.Create(c.t.Context(), report(node)))
		c.t.Cleanup(func() { _ = c.admin.Delete(context.Background(), report(node)) })
	}
	if state == "" {
		return
	}
	operator := apiservertest.ClientOf(c.t, releases.Operator(c.t))
	patch := fmt.Sprintf(`{"status":{"agent":{"state":%q,"since":"2026-11-30T12:00:00Z"}}}`, state)
	require.NoError(c.t, operator.Status().Patch(c.t.Context(), report(node), client.RawPatch(types.MergePatchType, []byte(patch))))
}

// ask makes the hook's ConfigMap as Helm would, but for storing it.
func (c cluster) ask(manager string) error {
	marker := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "moat-removal"}}
	return c.admin.Create(c.t.Context(), marker, client.DryRunAll, client.FieldOwner(manager))
}

// await waits until the API server, which reads policies and reports with a delay,
// refuses a removal for that reason, or "": allows it.
func (c cluster) await(message string) {
	c.t.Helper()
	require.Eventually(c.t, func() bool {
		err := c.ask("helm")
		return message == "" && err == nil || message != "" && err != nil && strings.Contains(err.Error(), message)
	}, time.Minute, apiservertest.Tick, "%s: %v", message, c.ask("helm"))
}

// requireGone expects nothing of the release in the API server but what is kept.
func (c cluster) requireGone() {
	c.t.Helper()
	require.False(c.t, c.exists(&appsv1.DaemonSet{}, namespace, "moat-agent"))
	require.False(c.t, c.exists(&appsv1.Deployment{}, namespace, "moat-operator"))
	for _, name := range []string{"moat-agent", "moat-operator"} {
		require.False(c.t, c.exists(&rbacv1.ClusterRole{}, "", name), name)
		require.False(c.t, c.exists(&rbacv1.ClusterRoleBinding{}, "", name), name)
	}
	crd := &metav1.PartialObjectMetadata{}
	crd.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	require.True(c.t, c.exists(crd, "", "appisolations.isolation.moat.dev"), "user data outlives the program")
}

// The API server is asked first, without a pod. Where it refuses nothing is removed;
// without hooks all is.
func TestHelmUninstallAsksFirst(t *testing.T) {
	c := newCluster(t)
	c.install("moat", namespace)
	isolation := &v1alpha1.AppIsolation{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kept"}}
	isolation.Spec.Selector = &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"app": "db"}}
	isolation.Spec.Directions = []v1alpha1.Direction{v1alpha1.DirectionIngress}
	require.NoError(t, c.admin.Create(t.Context(), isolation))
	t.Cleanup(func() { _ = c.admin.Delete(context.Background(), isolation) })

	c.agentIs("node-ready", v1alpha1.AgentReady)
	for _, state := range []v1alpha1.AgentState{"", v1alpha1.AgentNotReady, v1alpha1.AgentMissing, v1alpha1.AgentExcluded, v1alpha1.AgentUnknown} {
		said := "its agent is " + string(state)
		if state == "" {
			said = "no operator has said whether its agent runs"
		}
		c.agentIs("node-away", state)
		c.await("rules would stay on node node-away: " + said)
	}
	before := c.owned()
	err := c.helm("uninstall", "moat", "-n", namespace)
	require.ErrorContains(t, err, "node-away: its agent is Unknown")
	require.ErrorContains(t, err, "kubectl get nodeenforcements")
	t.Logf("Helm says: %v", err)
	require.Equal(t, before, c.owned(), "nothing is removed")
	require.NoError(t, c.ask("kubectl"), "who applies a template isn't asked")

	require.NoError(t, c.helm("uninstall", "moat", "-n", namespace, "--no-hooks"))
	c.requireGone()
	require.NoError(t, c.admin.Get(t.Context(), client.ObjectKeyFromObject(isolation), isolation))

	require.NoError(t, c.helm("install", "moat", chart, "-n", namespace), "the same name and namespace need no flag")
	c.await("its agent is Unknown")
	c.agentIs("node-away", v1alpha1.AgentReady)
	c.await("")
	require.NoError(t, c.helm("uninstall", "moat", "-n", namespace))
	c.requireGone()
}

// Without a report no agent ever came to work, as where no image can be pulled.
func TestHelmUninstallOfAFailedInstall(t *testing.T) {
	c := newCluster(t)
	c.install("moat", namespace)
	c.agentIs("node-gone", v1alpha1.AgentMissing)
	c.await("its agent is Missing") // the check works
	require.NoError(t, c.admin.Delete(t.Context(), report("node-gone")))
	c.await("")
	require.NoError(t, c.helm("uninstall", "moat", "-n", namespace))
	c.requireGone()
}

// uninstall.check: false asks nobody, and applying a template fails for no agent.
func TestHelmUninstallWithoutTheCheck(t *testing.T) {
	c := newCluster(t)
	c.install("moat", namespace)
	c.agentIs("node-off", v1alpha1.AgentNotReady)
	c.await("its agent is NotReady")
	kubectl := exec.Command(filepath.Join(os.Getenv("KUBEBUILDER_ASSETS"), "kubectl"), "--kubeconfig", c.kubeconfig, "apply", "-f", "-")
	kubectl.Stdin = strings.NewReader(render(t)["ConfigMap/moat-removal"].text)
	out, err := kubectl.CombinedOutput()
	require.NoError(t, err, string(out))
	require.NoError(t, c.helm("upgrade", "moat", chart, "-n", namespace, "--set", "uninstall.check=false"))
	require.NoError(t, c.helm("uninstall", "moat", "-n", namespace))
	c.requireGone()
}

// owned returns the versions of objects of the release.
func (c cluster) owned() map[string]string {
	c.t.Helper()
	versions := map[string]string{}
	for _, list := range []client.ObjectList{
		&appsv1.DaemonSetList{}, &appsv1.DeploymentList{}, &corev1.ConfigMapList{}, &corev1.ServiceAccountList{},
		&rbacv1.ClusterRoleList{}, &rbacv1.ClusterRoleBindingList{}, &rbacv1.RoleList{}, &rbacv1.RoleBindingList{},
	} {
		require.NoError(c.t, c.admin.List(c.t.Context(), list, client.MatchingLabels{"app.kubernetes.io/name": "moat"}))
		require.NoError(c.t, meta.EachListItem(list, func(o runtime.Object) error {
			object := o.(client.Object)
			versions[fmt.Sprintf("%T %s", object, object.GetName())] = object.GetResourceVersion()
			return nil
		}))
	}
	require.Greater(c.t, len(versions), 10)
	return versions
}

// One cluster has one Moat: a second one is refused with the name of the first, also
// where the user tells Helm to take over what is there.
func TestASecondInstallIsRefused(t *testing.T) {
	c := newCluster(t)
	c.install("moat", namespace)
	for _, second := range [][]string{{"moat", "elsewhere"}, {"other", namespace}, {"other", "elsewhere"}} {
		for _, more := range [][]string{nil, {"--take-ownership"}, {"--dry-run=server"}} {
			args := append([]string{"install", second[0], chart, "-n", second[1], "--create-namespace"}, more...)
			require.ErrorContains(t, c.helm(args...), "Moat is in this cluster already: as release moat in namespace "+namespace, args)
		}
	}
	require.NoError(t, c.helm("upgrade", "moat", chart, "-n", namespace, "--set", "logLevel=debug"), "the release itself is no second one")
	require.NoError(t, c.helm("template", "other", chart, "-n", "elsewhere"), "a template asks no cluster")
}

// What another tool installed, such as kustomize, carries no release.
func TestASecondInstallBesideAnotherToolIsRefused(t *testing.T) {
	c := newCluster(t)
	c.install("moat", namespace)
	agents := &appsv1.DaemonSet{}
	require.NoError(t, c.admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "moat-agent"}, agents))
	agents.Annotations = nil
	require.NoError(t, c.admin.Update(t.Context(), agents))
	require.ErrorContains(t, c.helm("install", "moat", chart, "-n", "elsewhere", "--create-namespace"),
		"Moat is in this cluster already: in namespace "+namespace+", where another tool than Helm installed it")
	require.NoError(t, c.admin.Delete(t.Context(), agents))
}

// After an uninstall the CRDs stay, and carry the name of the release that was. Another
// name or namespace takes them over; so does one after "kubectl delete namespace", which
// leaves the cluster's roles and admission policies, too.
func TestAnotherReleaseTakesOverWhatWasLeft(t *testing.T) {
	c := newCluster(t)
	c.install("moat", namespace)
	require.NoError(t, c.helm("uninstall", "moat", "-n", namespace, "--no-hooks"))
	again := []string{"install", "another", chart, "-n", "elsewhere", "--create-namespace"}
	err := c.helm(again...)
	require.ErrorContains(t, err, "CustomResourceDefinition")
	require.ErrorContains(t, err, `current value is "moat"`)
	c.install("another", "elsewhere")
	require.NoError(t, c.helm("upgrade", "another", chart, "-n", "elsewhere"), "from then on no flag is needed")

	// The namespace is deleted: of the release only what has no namespace is left.
	require.NoError(t, c.admin.Delete(t.Context(), &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere", Name: "moat-agent"}}))
	require.NoError(t, c.helm("install", "moat", chart, "-n", "third", "--create-namespace", "--take-ownership"))
	require.NoError(t, c.helm("uninstall", "moat", "-n", "third", "--no-hooks"))
}
