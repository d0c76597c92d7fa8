package charts_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/apiservertest"
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

// jobEnds plays the controller of Jobs: as soon as Helm has made the Job, it ends so.
func (c cluster) jobEnds(condition batchv1.JobConditionType, reason string) {
	c.t.Helper()
	go func() {
		now := metav1.Now()
		for c.t.Context().Err() == nil {
			job := &batchv1.Job{}
			if c.admin.Get(c.t.Context(), client.ObjectKey{Namespace: namespace, Name: "moat-uninstall"}, job) == nil && job.DeletionTimestamp == nil {
				before := batchv1.JobFailureTarget
				job.Status = batchv1.JobStatus{StartTime: &now}
				if condition == batchv1.JobComplete {
					before, job.Status.CompletionTime = batchv1.JobSuccessCriteriaMet, &now
				}
				for _, kind := range []batchv1.JobConditionType{before, condition} {
					job.Status.Conditions = append(job.Status.Conditions, batchv1.JobCondition{Type: kind, Status: corev1.ConditionTrue, Reason: reason, LastTransitionTime: now})
				}
				if c.admin.Status().Update(c.t.Context(), job) == nil {
					return
				}
			}
			time.Sleep(apiservertest.Tick)
		}
	}()
}

// requireGone expects nothing of the release in the API server but what is kept.
func (c cluster) requireGone() {
	c.t.Helper()
	require.False(c.t, c.exists(&appsv1.DaemonSet{}, namespace, "moat-agent"))
	require.False(c.t, c.exists(&appsv1.Deployment{}, namespace, "moat-operator"))
	for _, name := range []string{"moat-agent", "moat-operator", "moat-uninstall"} {
		require.False(c.t, c.exists(&rbacv1.ClusterRole{}, "", name), name)
		require.False(c.t, c.exists(&rbacv1.ClusterRoleBinding{}, "", name), name)
	}
	crd := &metav1.PartialObjectMetadata{}
	crd.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	require.True(c.t, c.exists(crd, "", "appisolations.isolation.moat.dev"), "user data outlives the program")
}

// The Job is asked first. Where it fails nothing is removed; without hooks all is.
func TestHelmUninstallAsksFirst(t *testing.T) {
	c := newCluster(t)
	c.install("moat", namespace)
	isolation := &v1alpha1.AppIsolation{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kept"}}
	isolation.Spec.Selector = &v1alpha1.LabelSelector{MatchLabels: map[string]v1alpha1.LabelValue{"app": "db"}}
	isolation.Spec.Directions = []v1alpha1.Direction{v1alpha1.DirectionIngress}
	require.NoError(t, c.admin.Create(t.Context(), isolation))
	t.Cleanup(func() { _ = c.admin.Delete(context.Background(), isolation) })

	c.jobEnds(batchv1.JobFailed, "DeadlineExceeded")
	begun := time.Now()
	err := c.helm("uninstall", "moat", "-n", namespace)
	require.ErrorContains(t, err, "moat-uninstall")
	require.Less(t, time.Since(begun), time.Minute, "it doesn't wait for Helm's timeout")
	t.Logf("Helm says of a Job that failed: %v", err)
	require.True(t, c.exists(&appsv1.DaemonSet{}, namespace, "moat-agent"), "nothing is removed")
	require.True(t, c.exists(&rbacv1.ClusterRole{}, "", "moat-operator"))
	require.False(t, c.exists(&rbacv1.ClusterRole{}, "", "moat-uninstall"), "the Job's rights go also where it failed")
	require.True(t, c.exists(&batchv1.Job{}, namespace, "moat-uninstall"), "its log can be read")

	require.NoError(t, c.helm("uninstall", "moat", "-n", namespace, "--no-hooks"))
	c.requireGone()
	require.NoError(t, c.admin.Get(t.Context(), client.ObjectKeyFromObject(isolation), isolation))

	require.NoError(t, c.helm("install", "moat", chart, "-n", namespace), "the same name and namespace need no flag")
	require.True(t, c.exists(&batchv1.Job{}, namespace, "moat-uninstall"), "the Job that failed is still there")
	c.jobEnds(batchv1.JobComplete, "CompletionsReached")
	require.NoError(t, c.helm("uninstall", "moat", "-n", namespace))
	c.requireGone()
	require.False(t, c.exists(&batchv1.Job{}, namespace, "moat-uninstall"))
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
