package cluster

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// Release is what an agent knows of an install of Moat: a namespace with the DaemonSet,
// the marker and the agents' Role, as config has them. A cluster may hold several, each
// with agents on other nodes.
type Release struct {
	Namespace string
	cluster   *Cluster
}

// Release makes the objects of an install in a namespace of their own.
func (c *Cluster) Release(t testing.TB, namespace string) *Release {
	t.Helper()
	r := &Release{Namespace: namespace, cluster: c}
	c.Namespace(t, namespace, nil)
	role := &rbacv1.Role{}
	r.read(t, "rbac/agent_role.yaml", "Role", role)
	require.NoError(t, c.Client.Create(t.Context(), role))
	require.NoError(t, c.Client.Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: apiservertest.AgentAccount},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: apiservertest.OperatorNamespace, Name: apiservertest.AgentAccount}},
	}))
	require.NoError(t, c.Client.Create(t.Context(), r.Marker(t)))
	require.NoError(t, c.Client.Create(t.Context(), r.DaemonSet(t)))
	return r
}

// Marker is the release's ConfigMap, as config has it.
func (r *Release) Marker(t testing.TB) *corev1.ConfigMap {
	t.Helper()
	marker := &corev1.ConfigMap{}
	r.read(t, "agent/release.yaml", "ConfigMap", marker)
	return marker
}

// DaemonSet is the release's DaemonSet, as config has it.
func (r *Release) DaemonSet(t testing.TB) *appsv1.DaemonSet {
	t.Helper()
	daemonSet := &appsv1.DaemonSet{}
	r.read(t, "agent/agent.yaml", "DaemonSet", daemonSet)
	return daemonSet
}

// read reads an object of a kind from a file of config, in the release's namespace.
func (r *Release) read(t testing.TB, file, kind string, object client.Object) {
	t.Helper()
	text, err := os.ReadFile("../../config/" + file)
	require.NoError(t, err)
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		if strings.Contains(document, "\nkind: "+kind+"\n") {
			require.NoError(t, yaml.UnmarshalStrict([]byte(document), object))
			object.SetNamespace(r.Namespace)
			return
		}
	}
	require.FailNow(t, "no "+kind+" in "+file)
}

// TakeRights takes the agents' Role away. Their ClusterRole stays.
func (r *Release) TakeRights(t testing.TB) {
	t.Helper()
	require.NoError(t, r.cluster.Client.Delete(t.Context(), &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: apiservertest.AgentAccount}}))
}

// StartAgent starts the node's agent as a container of its pod, which this makes if it
// isn't there.
func (r *Release) StartAgent(t testing.TB, n *Node, flags ...string) {
	t.Helper()
	template := r.DaemonSet(t).Spec.Template
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.podName(n), Labels: template.Labels}, Spec: template.Spec}
	pod.Spec.NodeName, pod.Spec.ServiceAccountName, pod.Spec.PriorityClassName = n.Name, "", ""
	require.NoError(t, client.IgnoreAlreadyExists(r.cluster.Client.Create(t.Context(), pod)))
	n.StartAgentOf(t, moatBinary(t), r.Env(n), iptables.NFT, flags...)
}

// Env is what the pod of the node's agent has in its environment.
func (r *Release) Env(n *Node) []string {
	return []string{"POD_NAMESPACE=" + r.Namespace, "POD_NAME=" + r.podName(n)}
}

func (r *Release) podName(n *Node) string { return "moat-agent-" + n.Name }

// EndAgent deletes the pod of the node's agent, and tells the agent to end as a kubelet
// does. It returns at once.
func (r *Release) EndAgent(t testing.TB, n *Node) {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: r.Namespace, Name: r.podName(n)}}
	require.NoError(t, r.cluster.Client.Delete(t.Context(), pod))
	require.NoError(t, r.cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: r.Namespace, Name: pod.Name}, pod), "a kubelet removes it")
	n.Agent.Signal(syscall.SIGTERM)
}
