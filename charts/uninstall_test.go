package charts_test

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/controllers/apiservertest"
	"github.com/moat-dev/moat/controllers/removal"
)

// uninstallHooks are what exists only while Helm uninstalls.
var uninstallHooks = []string{"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "Job"}

// All of it is made before anything is removed, the rights before the Job, and goes
// when it has succeeded.
func TestUninstallIsAHook(t *testing.T) {
	objects := render(t)
	for _, kind := range uninstallHooks {
		hook := hookOf(t, objects[kind+"/moat-uninstall"])
		require.Equal(t, "pre-delete", hook["helm.sh/hook"], kind)
		require.Equal(t, "before-hook-creation,hook-succeeded", hook["helm.sh/hook-delete-policy"], kind)
		require.Equal(t, kind != "Job", hook["helm.sh/hook-weight"] == "-1", kind)
	}
}

// hookOf returns the annotations of an object.
func hookOf(t *testing.T, o object) map[string]string {
	t.Helper()
	var stored metav1.PartialObjectMetadata
	require.NoError(t, yaml.Unmarshal([]byte(o.text), &stored), o.name)
	return stored.Annotations
}

func TestUninstallIsUnprivileged(t *testing.T) {
	pod := decode[batchv1.Job](t, render(t), "Job/moat-uninstall").Spec.Template.Spec
	require.Empty(t, pod.Volumes)
	require.True(t, *pod.SecurityContext.RunAsNonRoot)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, pod.SecurityContext.SeccompProfile.Type)
	security := pod.Containers[0].SecurityContext
	require.False(t, *security.AllowPrivilegeEscalation)
	require.True(t, *security.ReadOnlyRootFilesystem)
	require.Equal(t, &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, security.Capabilities)
}

// The Job runs where the operator may run, and what closes pods doesn't close it: a
// policy in Moat's namespace, the guard of a node without agent, or that node's taint.
// It stays off nodes that are dead, where it would never end.
func TestUninstallStartsWhereItCan(t *testing.T) {
	job := decode[batchv1.Job](t, render(t), "Job/moat-uninstall")
	pod := job.Spec.Template.Spec
	require.True(t, pod.HostNetwork)
	require.Equal(t, corev1.DNSDefault, pod.DNSPolicy)
	require.Equal(t, operatorOf(t, render(t)).Spec.Template.Spec.PriorityClassName, pod.PriorityClassName)
	require.Equal(t, map[string]string{corev1.LabelOSStable: "linux"}, pod.NodeSelector)
	require.EqualValues(t, 60, *job.Spec.ActiveDeadlineSeconds, "where its image can't be pulled")
	require.Contains(t, job.Annotations["isolation.moat.dev/if-this-job-fails"], "helm uninstall moat -n moat-system --no-hooks")
	for _, toleration := range pod.Tolerations {
		require.NotEmpty(t, toleration.Key, "an empty key tolerates dead nodes, too")
		require.Equal(t, corev1.TaintEffectNoSchedule, toleration.Effect)
		require.NotContains(t, []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable}, toleration.Key)
	}
	for _, key := range []string{removal.AbsentTaint, corev1.TaintNodeUnschedulable, "node-role.kubernetes.io/control-plane"} {
		require.Contains(t, pod.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule})
	}

	own := decode[batchv1.Job](t, render(t, "--set-json", `operator={"priorityClassName":"","nodeSelector":{"infra":"yes"},"tolerations":[{"key":"infra","operator":"Exists"}]}`),
		"Job/moat-uninstall").Spec.Template.Spec
	require.Empty(t, own.PriorityClassName, "a quota keeps the system classes out of the namespace")
	require.Equal(t, map[string]string{corev1.LabelOSStable: "linux", "infra": "yes"}, own.NodeSelector)
	require.Contains(t, own.Tolerations, corev1.Toleration{Key: "infra", Operator: corev1.TolerationOpExists})
}

// reading are the verbs that change nothing.
var reading = []string{"get", "list", "watch"}

// What Helm makes as a hook is rendered by others as an ordinary object ("helm template |
// kubectl apply", kustomize, kapp): so no hook may take anything down.
func TestNoHookMayTakeAnythingDown(t *testing.T) {
	for name, args := range map[string][]string{"defaults": nil, "everything": {"--values", filepath.Join("testdata", "everything.yaml")}} {
		t.Run(name, func(t *testing.T) {
			objects, roles := render(t, args...), 0
			for key, o := range objects {
				hook := hookOf(t, o)["helm.sh/hook"]
				if hook == "" {
					continue
				}
				switch o.kind {
				case "Role", "ClusterRole":
					roles++
					requireReads(t, key, hook, decode[rbacv1.ClusterRole](t, objects, key).Rules)
				case "RoleBinding", "ClusterRoleBinding":
					role := decode[rbacv1.ClusterRoleBinding](t, objects, key).RoleRef
					require.NotEmpty(t, hookOf(t, objects[role.Kind+"/"+role.Name])["helm.sh/hook"], "%s gives a hook the rights of another", key)
				}
			}
			require.Equal(t, 3, roles, "those of the uninstall and of the test")
		})
	}
}

// requireReads lets no hook write what Moat is made of. The test alone makes pods, and
// writes its AppIsolations.
func requireReads(t *testing.T, key, hook string, rules []rbacv1.PolicyRule) {
	t.Helper()
	require.NotEmpty(t, rules, key)
	own := map[string][]string{"pods": {"create"}, "appisolations": {"create", "delete"}}
	for _, rule := range rules {
		for _, resource := range rule.Resources {
			may := reading
			if hook == "test" {
				may = append(slices.Clone(reading), own[resource]...)
			}
			require.Subset(t, may, rule.Verbs, "%s: %s", key, resource)
		}
	}
}

// fill puts Moat into the API server: its DaemonSet and the rights of the Job, a node
// with a report, and an agent's pod that its status says nothing good of.
func fill(t *testing.T, objects map[string]object, node string) {
	t.Helper()
	admin := server.Admin(t)
	for _, kind := range []string{"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"} {
		create(t, admin, objects[kind+"/moat-uninstall"])
	}
	create(t, admin, objects["DaemonSet/moat-agent"])
	agents := agentOf(t, objects)
	require.NoError(t, admin.Get(t.Context(), client.ObjectKeyFromObject(&agents), &agents))
	require.NoError(t, admin.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}}))
	require.NoError(t, apiservertest.ClientOf(t, server.Agent(t, node)).Create(t.Context(), report(node)))
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "moat-agent-x", Labels: agents.Spec.Template.Labels,
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "DaemonSet", Name: agents.Name, UID: agents.UID, Controller: new(true)}}},
		Spec: corev1.PodSpec{NodeName: node, TerminationGracePeriodSeconds: new(int64(60)), Containers: []corev1.Container{{Name: "agent", Image: "none"}}},
	}
	require.NoError(t, admin.Create(t.Context(), pod))
}

// agentRuns makes the agent's pod Ready, as its kubelet would.
func agentRuns(t *testing.T) {
	t.Helper()
	pod := &corev1.Pod{}
	require.NoError(t, server.Admin(t).Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "moat-agent-x"}, pod))
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "agent", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}}
	require.NoError(t, server.Admin(t).Status().Update(t.Context(), pod))
}

// The Job's program gets along with the rights that the chart gives it, and leaves every
// object of the cluster as it was: where it refuses, and where it lets Helm go on.
func TestUninstallOnlyReads(t *testing.T) {
	objects := render(t)
	fill(t, objects, "uninstalled")
	account := server.User(t, "system:serviceaccount:"+namespace+":moat-uninstall", "system:serviceaccounts", "system:authenticated")
	var out strings.Builder
	check := removal.Check{Client: apiservertest.ClientOf(t, account), Namespace: namespace, Out: &out}

	before := versions(t)
	require.ErrorIs(t, check.Run(t.Context()), removal.ErrOutOfReach)
	require.Contains(t, out.String(), "1 node has rules, and its agent is only starting:\n  uninstalled: the kubelet hasn't started pod moat-agent-x yet\n")
	require.NotContains(t, out.String(), "forbidden")
	require.Equal(t, before, versions(t))

	agentRuns(t)
	before = versions(t)
	require.NoError(t, check.Run(t.Context()))
	require.Contains(t, out.String(), "removal reaches each of the 1 nodes")
	require.Equal(t, before, versions(t))

	for _, verb := range []string{"create", "update", "patch", "delete", "deletecollection"} {
		for _, r := range []right{
			{verb: verb, resource: "nodes"}, {verb: verb, resource: "pods", namespace: namespace},
			{verb: verb, group: "apps", resource: "daemonsets", namespace: namespace},
			{verb: verb, group: "isolation.moat.dev", resource: "nodeenforcements"},
		} {
			require.False(t, isAllowed(t, account, r), "%+v", r)
		}
	}
}

// versions returns the resource version of every object that the API server stores, but
// for what it writes by itself.
func versions(t *testing.T) map[string]string {
	t.Helper()
	config := server.AdminConfig(t)
	kinds, err := discovery.NewDiscoveryClientForConfigOrDie(config).ServerPreferredResources()
	require.NoError(t, err)
	stored, all := metadata.NewForConfigOrDie(config), map[string]string{}
	for _, kind := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "delete"}}, kinds) {
		resources, err := discovery.GroupVersionResources([]*metav1.APIResourceList{kind})
		require.NoError(t, err)
		for resource := range resources {
			if slices.Contains([]string{"leases", "events", "endpoints"}, resource.Resource) {
				continue
			}
			list, err := stored.Resource(resource).List(t.Context(), metav1.ListOptions{})
			require.NoError(t, err, resource)
			for _, o := range list.Items {
				all[resource.String()+" "+o.Namespace+"/"+o.Name] = o.ResourceVersion
			}
		}
	}
	require.Greater(t, len(slices.Collect(maps.Keys(all))), 20)
	return all
}

func create(t *testing.T, admin client.Client, o object) {
	t.Helper()
	stored := &unstructured.Unstructured{}
	require.NoError(t, yaml.Unmarshal([]byte(o.text), &stored.Object))
	require.NoError(t, admin.Create(t.Context(), stored), o.kind)
}
