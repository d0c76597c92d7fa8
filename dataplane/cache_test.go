package dataplane

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/policy"
)

// richPods have every field that ParsePod reads, and some that it doesn't.
const richPods = `
- metadata: {namespace: a, name: full, uid: u1, resourceVersion: "7", labels: {role: web}, annotations: {large: text},
    ownerReferences: [{apiVersion: v1, kind: X, name: x, uid: x}], managedFields: [{manager: kubectl}]}
  spec:
    nodeName: node-1
    serviceAccountName: web
    volumes: [{name: v}]
    containers:
    - {name: a, image: i, env: [{name: E, value: v}], ports: [{name: http, containerPort: 8080, hostPort: 80}, {containerPort: 9090}]}
    - {name: b, ports: [{name: dns, containerPort: 53, protocol: UDP}, {name: http, containerPort: 81}]}
    - {name: c}
    initContainers:
    - {name: d, ports: [{name: setup, containerPort: 1}]}
    - {name: e, restartPolicy: Always, ports: [{name: proxy, containerPort: 2, protocol: SCTP}]}
  status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}], conditions: [{type: Ready, status: "True"}], hostIP: 192.0.2.1}
- {metadata: {namespace: a, name: host}, spec: {nodeName: node-1, hostNetwork: true, containers: []}, status: {podIPs: [{ip: 192.0.2.1}]}}
- {metadata: {namespace: a, name: succeeded}, spec: {containers: []}, status: {phase: Succeeded, podIPs: [{ip: 10.0.0.2}]}}
- {metadata: {namespace: a, name: failed}, spec: {containers: []}, status: {phase: Failed, podIPs: [{ip: 10.0.0.3}]}}
- {metadata: {namespace: a, name: pending, labels: {a: b}}, spec: {containers: []}, status: {phase: Pending}}
- {metadata: {namespace: a, name: leaving, deletionTimestamp: "2026-01-01T00:00:00Z"}, spec: {containers: []}, status: {phase: Running, podIPs: [{ip: 10.0.0.4}]}}
`

func TestTrimPodKeepsWhatIsRead(t *testing.T) {
	var pods []corev1.Pod
	require.NoError(t, yaml.UnmarshalStrict([]byte(richPods), &pods))
	for i := range pods {
		pod := &pods[i]
		before := pod.DeepCopy()
		once := trimmed(t, trimPod, pod)
		require.Equal(t, policy.ParsePod(pod), policy.ParsePod(once), pod.Name)
		require.Equal(t, pod.ResourceVersion, once.ResourceVersion, "the informer needs it")
		require.Equal(t, pod.UID, once.UID)
		require.Equal(t, once, trimmed(t, trimPod, once), "trimming twice is trimming once")
		require.Equal(t, before, pod, "the argument stays as it is")
	}
	full := trimmed(t, trimPod, &pods[0])
	require.Empty(t, full.ManagedFields)
	require.Empty(t, full.Annotations)
	require.Empty(t, full.Status.Conditions)
	require.Empty(t, full.Spec.Volumes)
}

func trimmed[T any](t *testing.T, trim func(any) (any, error), object T) T {
	t.Helper()
	result, err := trim(object)
	require.NoError(t, err)
	require.IsType(t, object, result)
	return result.(T)
}

func TestTrimNamespaceAndNode(t *testing.T) {
	meta := metav1.ObjectMeta{Name: "x", UID: "u", Labels: map[string]string{"team": "blue"}, Annotations: map[string]string{"a": "b"}}
	namespace := trimmed(t, trimNamespace, &corev1.Namespace{ObjectMeta: meta})
	require.Equal(t, meta.Labels, namespace.Labels)
	require.Empty(t, namespace.Annotations)

	node := trimmed(t, trimNode, &corev1.Node{ObjectMeta: meta, Status: corev1.NodeStatus{Images: make([]corev1.ContainerImage, 9)}})
	require.Equal(t, meta.Name, node.Name)
	require.Equal(t, meta.UID, node.UID, "the report's owner")
	require.Empty(t, node.Status.Images)
}

// An informer hands over tombstones too.
func TestTrimPassesOverOthers(t *testing.T) {
	lost := toolscache.DeletedFinalStateUnknown{Key: "a/b"}
	for _, trim := range []func(any) (any, error){trimPod, trimNamespace, trimNode} {
		require.Equal(t, lost, trimmed(t, trim, lost))
	}
}

func TestCacheHoldsOnlyTheOwnNode(t *testing.T) {
	options := cacheOptions("node-1")
	kinds := map[string]string{}
	for object, by := range options.ByObject {
		require.NotNil(t, by.Transform, "%T is kept whole", object)
		selects := ""
		if by.Field != nil {
			selects = by.Field.String()
		}
		switch object.(type) {
		case *corev1.Pod:
			kinds["pod"] = selects
		case *corev1.Namespace:
			kinds["namespace"] = selects
		case *networkingv1.NetworkPolicy:
			kinds["networkpolicy"] = selects
		case *corev1.Node:
			kinds["node"] = selects
		}
	}
	require.Equal(t, map[string]string{"pod": "", "namespace": "", "networkpolicy": "", "node": "metadata.name=node-1"}, kinds)
}

// The names of the resources are guessed from the kinds, without an API server.
func TestKnownKinds(t *testing.T) {
	mapper, err := knownKinds(nil, nil)
	require.NoError(t, err)
	for resource, kind := range map[string]schema.GroupVersionKind{
		"pods":             corev1.SchemeGroupVersion.WithKind("Pod"),
		"namespaces":       corev1.SchemeGroupVersion.WithKind("Namespace"),
		"nodes":            corev1.SchemeGroupVersion.WithKind("Node"),
		"networkpolicies":  networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"),
		"nodeenforcements": v1alpha1.GroupVersion.WithKind("NodeEnforcement"),
	} {
		mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
		require.NoError(t, err)
		require.Equal(t, resource, mapping.Resource.Resource)
		namespaced := kind.Kind == "Pod" || kind.Kind == "NetworkPolicy"
		require.Equal(t, namespaced, mapping.Scope.Name() == meta.RESTScopeNameNamespace, resource)
	}
}
