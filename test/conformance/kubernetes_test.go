package conformance

import (
	"errors"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/test/cluster"
)

// placement says on which node a pod runs. Each node has pods that share a
// namespace, pods that share a name, and pods that share neither, so same-node and
// cross-node pairs of every kind are probed.
var placement = map[string]string{
	"x/a": "node-1", "x/b": "node-1", "y/a": "node-1",
	"x/c": "node-2", "y/b": "node-2", "z/b": "node-2",
	"y/c": "node-3", "z/a": "node-3", "z/c": "node-3",
	// These come and go in some cases.
	"x/d": "node-2", "w/a": "node-2", "y-2/a": "node-1", "y-2/b": "node-3",
}

// kubernetes is Cyclonus' kube.IKubernetes over a cluster of network namespaces.
// What the API server refuses is returned as an error; where the cluster itself
// breaks, the test fails.
type kubernetes struct {
	t       testing.TB
	cluster *cluster.Cluster
	client  client.Client
	prober  prober
}

func newKubernetes(t testing.TB, c *cluster.Cluster) *kubernetes {
	return &kubernetes{t: t, cluster: c, client: c.Client}
}

func (k *kubernetes) get(namespace, name string, object client.Object) error {
	return k.client.Get(k.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, object)
}

// CreateNamespace implements kube.IKubernetes.
func (k *kubernetes) CreateNamespace(namespace *corev1.Namespace) (*corev1.Namespace, error) {
	created := namespace.DeepCopy()
	return created, k.client.Create(k.t.Context(), created)
}

// GetNamespace implements kube.IKubernetes.
func (k *kubernetes) GetNamespace(name string) (*corev1.Namespace, error) {
	namespace := &corev1.Namespace{}
	return namespace, k.get("", name, namespace)
}

// SetNamespaceLabels implements kube.IKubernetes.
func (k *kubernetes) SetNamespaceLabels(name string, labels map[string]string) (*corev1.Namespace, error) {
	namespace, err := k.GetNamespace(name)
	if err != nil {
		return nil, err
	}
	namespace.Labels = labels
	return namespace, k.client.Update(k.t.Context(), namespace)
}

// DeleteNamespace implements kube.IKubernetes.
func (k *kubernetes) DeleteNamespace(name string) error {
	k.cluster.DeleteNamespace(k.t, name)
	return nil
}

// GetAllNamespaces implements kube.IKubernetes.
func (k *kubernetes) GetAllNamespaces() (*corev1.NamespaceList, error) {
	namespaces := &corev1.NamespaceList{}
	return namespaces, k.client.List(k.t.Context(), namespaces)
}

// CreateNetworkPolicy implements kube.IKubernetes.
func (k *kubernetes) CreateNetworkPolicy(policy *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, error) {
	created := policy.DeepCopy() // Several clusters run the same case at once.
	return created, k.client.Create(k.t.Context(), created)
}

// GetNetworkPoliciesInNamespace implements kube.IKubernetes.
func (k *kubernetes) GetNetworkPoliciesInNamespace(namespace string) ([]networkingv1.NetworkPolicy, error) {
	policies := &networkingv1.NetworkPolicyList{}
	err := k.client.List(k.t.Context(), policies, client.InNamespace(namespace))
	return policies.Items, err
}

// UpdateNetworkPolicy implements kube.IKubernetes.
func (k *kubernetes) UpdateNetworkPolicy(policy *networkingv1.NetworkPolicy) (*networkingv1.NetworkPolicy, error) {
	updated := policy.DeepCopy()
	return updated, k.client.Update(k.t.Context(), updated)
}

// DeleteNetworkPolicy implements kube.IKubernetes.
func (k *kubernetes) DeleteNetworkPolicy(namespace, name string) error {
	return k.client.Delete(k.t.Context(), &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
}

// DeleteAllNetworkPoliciesInNamespace implements kube.IKubernetes.
func (k *kubernetes) DeleteAllNetworkPoliciesInNamespace(namespace string) error {
	return k.client.DeleteAllOf(k.t.Context(), &networkingv1.NetworkPolicy{}, client.InNamespace(namespace))
}

// CreateService implements kube.IKubernetes. Nothing forwards to a Service here:
// the probes go to pods.
func (k *kubernetes) CreateService(service *corev1.Service) (*corev1.Service, error) {
	created := service.DeepCopy()
	return created, k.client.Create(k.t.Context(), created)
}

// GetService implements kube.IKubernetes.
func (k *kubernetes) GetService(namespace, name string) (*corev1.Service, error) {
	service := &corev1.Service{}
	return service, k.get(namespace, name, service)
}

// DeleteService implements kube.IKubernetes.
func (k *kubernetes) DeleteService(namespace, name string) error {
	return k.client.Delete(k.t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}})
}

// GetServicesInNamespace implements kube.IKubernetes.
func (k *kubernetes) GetServicesInNamespace(namespace string) ([]corev1.Service, error) {
	services := &corev1.ServiceList{}
	err := k.client.List(k.t.Context(), services, client.InNamespace(namespace))
	return services.Items, err
}

// CreatePod implements kube.IKubernetes. The pod runs when it returns.
func (k *kubernetes) CreatePod(pod *corev1.Pod) (*corev1.Pod, error) {
	node, placed := placement[pod.Namespace+"/"+pod.Name]
	if !placed {
		return nil, fmt.Errorf("placing pod %s/%s: it isn't in the table of placements", pod.Namespace, pod.Name)
	}
	created := pod.DeepCopy()
	k.cluster.AddPod(k.t, k.cluster.Node(k.t, node), created)
	return created, nil
}

// GetPod implements kube.IKubernetes.
func (k *kubernetes) GetPod(namespace, name string) (*corev1.Pod, error) {
	pod := &corev1.Pod{}
	return pod, k.get(namespace, name, pod)
}

// DeletePod implements kube.IKubernetes.
func (k *kubernetes) DeletePod(namespace, name string) error {
	k.cluster.DeletePod(k.t, namespace, name)
	return nil
}

// SetPodLabels implements kube.IKubernetes.
func (k *kubernetes) SetPodLabels(namespace, name string, labels map[string]string) (*corev1.Pod, error) {
	pod, err := k.GetPod(namespace, name)
	if err != nil {
		return nil, err
	}
	pod.Labels = labels
	return pod, k.client.Update(k.t.Context(), pod)
}

// GetPodsInNamespace implements kube.IKubernetes.
func (k *kubernetes) GetPodsInNamespace(namespace string) ([]corev1.Pod, error) {
	pods := &corev1.PodList{}
	err := k.client.List(k.t.Context(), pods, client.InNamespace(namespace))
	return pods.Items, err
}

// ExecuteRemoteCommand implements kube.IKubernetes for the one command that
// Cyclonus runs: `/agnhost connect …`. The first error says that nobody answered,
// the second that the probe itself went wrong. Cyclonus takes any failure of a
// command for a drop; here a drop is silence and nothing else.
func (k *kubernetes) ExecuteRemoteCommand(namespace, pod, _ string, command []string) (stdout, stderr string, silence, err error) {
	host := k.cluster.Pod(namespace, pod)
	if host == nil {
		return "", "", nil, fmt.Errorf("finding pod %s/%s: there is none", namespace, pod)
	}
	attempt, err := parseAttempt(command)
	if err != nil {
		return "", "", nil, err
	}
	err = k.prober.send(host.Host, attempt)
	if errors.Is(err, errSilence) {
		return "", "", err, nil
	}
	return "", "", nil, err
}
