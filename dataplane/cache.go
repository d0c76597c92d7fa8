package dataplane

import (
	"net/http"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// ManagerOptions returns the options of an agent's manager, without addresses.
func ManagerOptions(scheme *runtime.Scheme, nodeName string) manager.Options {
	return manager.Options{
		Scheme:         scheme,
		Cache:          cacheOptions(nodeName),
		MapperProvider: knownKinds,
	}
}

// cacheOptions says what an agent watches: all pods, namespaces and policies,
// each without the fields that nobody reads, and its own Node.
func cacheOptions(nodeName string) cache.Options {
	return cache.Options{
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:                 {Transform: trimPod},
			&corev1.Namespace{}:           {Transform: trimNamespace},
			&networkingv1.NetworkPolicy{}: {Transform: cache.TransformStripManagedFields()},
			&corev1.Node{}: {
				Field:     fields.OneTermEqualSelector("metadata.name", nodeName),
				Transform: trimNode,
			},
		},
	}
}

// knownKinds maps the few kinds that an agent uses without asking the API server,
// which may be away when the agent starts.
func knownKinds(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"Node", "Namespace"} {
		mapper.Add(corev1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeRoot)
	}
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Pod"), meta.RESTScopeNamespace)
	mapper.Add(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), meta.RESTScopeNamespace)
	mapper.Add(v1alpha1.GroupVersion.WithKind("NodeEnforcement"), meta.RESTScopeRoot)
	return mapper, nil
}

// trimPod keeps what policy.ParsePod reads: with 100,000 pods the rest is
// gigabytes.
func trimPod(object any) (any, error) {
	pod, ok := object.(*corev1.Pod)
	if !ok {
		return object, nil
	}
	meta := trimMeta(pod.ObjectMeta)
	meta.DeletionTimestamp = pod.DeletionTimestamp
	return &corev1.Pod{
		ObjectMeta: meta,
		Spec: corev1.PodSpec{
			NodeName:       pod.Spec.NodeName,
			HostNetwork:    pod.Spec.HostNetwork,
			Containers:     trimContainers(pod.Spec.Containers),
			InitContainers: trimContainers(pod.Spec.InitContainers),
		},
		Status: corev1.PodStatus{Phase: pod.Status.Phase, PodIPs: pod.Status.PodIPs},
	}, nil
}

// trimContainers keeps the containers that serve a named port.
func trimContainers(containers []corev1.Container) []corev1.Container {
	var kept []corev1.Container
	for _, c := range containers {
		var named []corev1.ContainerPort
		for _, port := range c.Ports {
			if port.Name != "" {
				named = append(named, port)
			}
		}
		if named != nil {
			kept = append(kept, corev1.Container{Ports: named, RestartPolicy: c.RestartPolicy})
		}
	}
	return kept
}

func trimNamespace(object any) (any, error) {
	namespace, ok := object.(*corev1.Namespace)
	if !ok {
		return object, nil
	}
	return &corev1.Namespace{ObjectMeta: trimMeta(namespace.ObjectMeta)}, nil
}

func trimNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	return &corev1.Node{ObjectMeta: trimMeta(node.ObjectMeta)}, nil
}

func trimMeta(meta metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Namespace:       meta.Namespace,
		Name:            meta.Name,
		UID:             meta.UID,
		ResourceVersion: meta.ResourceVersion,
		Labels:          meta.Labels,
	}
}
