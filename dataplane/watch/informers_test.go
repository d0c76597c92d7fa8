package watch

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policystore"
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

// transforms returns the transformation of each kind.
func transforms(t *testing.T) map[string]toolscache.TransformFunc {
	t.Helper()
	found := map[string]toolscache.TransformFunc{}
	for object, by := range CacheOptions("node-1", policy.NewInterner(), policystore.New(0)).ByObject {
		require.NotNil(t, by.Transform, "%T is kept whole", object)
		found[reflect.TypeOf(object).Elem().Name()] = by.Transform
	}
	found["Pod"] = found["SlimPod"]
	return found
}

// stored returns what an informer stores of an object, after it made sure that it can
// be stored: informers read its key and its version, and transform it once more.
func stored[T keyed](t *testing.T, object client.Object) T {
	t.Helper()
	transform := transforms(t)[reflect.TypeOf(object).Elem().Name()]
	before := object.DeepCopyObject()
	once, err := transform(object)
	require.NoError(t, err)
	require.Equal(t, before, object, "the argument stays as it is")
	twice, err := transform(once)
	require.NoError(t, err)
	require.Same(t, once, twice, "it is transformed once")

	key, err := toolscache.MetaNamespaceKeyFunc(once)
	require.NoError(t, err)
	require.Equal(t, toolscache.MetaObjectToName(object).String(), key)
	namespaces, err := toolscache.MetaNamespaceIndexFunc(once)
	require.NoError(t, err)
	require.Equal(t, []string{object.GetNamespace()}, namespaces)
	accessor, err := meta.Accessor(once)
	require.NoError(t, err)
	require.Equal(t, object.GetResourceVersion(), accessor.GetResourceVersion())
	return once.(*Kept[T]).Value
}

func TestOfObjectsIsKeptWhatTheModelReads(t *testing.T) {
	var pods []corev1.Pod
	require.NoError(t, yaml.UnmarshalStrict([]byte(richPods), &pods))
	for i := range pods {
		require.Equal(t, ParsePod(&pods[i], "node-1"), stored[*policy.Pod](t, &pods[i]), pods[i].Name)
	}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "uid-p", Generation: 3}}
	np.ResourceVersion = "8"
	require.NoError(t, yaml.UnmarshalStrict([]byte(`{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {role: web}}}]}]}`), &np.Spec))
	require.Equal(t, policy.ParseNetworkPolicy(np), stored[*policystore.Held](t, np).Policy())

	object := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x", ResourceVersion: "9", Labels: map[string]string{"team": "blue"}}}
	require.Equal(t, &policy.Namespace{Name: "x", Labels: labels.Set{"team": "blue"}}, stored[*policy.Namespace](t, object))
}

// The uid of a pod of this node is the one that the container runtime knows; of other
// pods it isn't kept.
func TestPodsOfThisNodeHaveTheRuntimesUID(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "x", UID: "api"}, Spec: corev1.PodSpec{NodeName: "node-1"}}
	require.Equal(t, types.UID("api"), ParsePod(pod, "node-1").UID)
	require.Empty(t, ParsePod(pod, "node-2").UID)
	pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "manifest"}
	require.Equal(t, types.UID("manifest"), ParsePod(pod, "node-1").UID)
}

func TestTrimNode(t *testing.T) {
	full := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "x", UID: "u", ResourceVersion: "7", Annotations: map[string]string{"a": "b"}}}
	full.Status.Images = make([]corev1.ContainerImage, 9)
	full.Spec = corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24"}, ProviderID: "p"}
	result, err := trimNode(full)
	require.NoError(t, err)
	node := result.(*corev1.Node)
	require.Equal(t, "x", node.Name)
	require.Equal(t, full.UID, node.UID, "the report's owner")
	require.Equal(t, "7", node.ResourceVersion)
	require.Empty(t, node.Annotations)
	require.Empty(t, node.Status.Images)
	require.Equal(t, corev1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24"}}, node.Spec, "what the pod-start guard closes")
}

// An informer hands over tombstones too.
func TestTransformsPassOverOthers(t *testing.T) {
	lost := toolscache.DeletedFinalStateUnknown{Key: "a/b"}
	for kind, transform := range transforms(t) {
		result, err := transform(lost)
		require.NoError(t, err)
		require.Equal(t, lost, result, kind)
	}
}

func TestCacheHoldsOnlyTheOwnNode(t *testing.T) {
	options := CacheOptions("node-1", policy.NewInterner(), policystore.New(0))
	kinds := map[string]string{}
	for object, by := range options.ByObject {
		require.NotNil(t, by.Transform, "%T is kept whole", object)
		selects := ""
		if by.Field != nil {
			selects = by.Field.String()
		}
		switch object.(type) {
		case *SlimPod:
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
