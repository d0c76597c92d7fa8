package watch

import (
	"net/http"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/lastword"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policystore"
)

// ManagerOptions returns the options of an agent's manager, without addresses. Its watches
// note in words what they hear, and hold the policies that the store returns.
func ManagerOptions(scheme *runtime.Scheme, nodeName string, words *lastword.Words, policies *policystore.Store) manager.Options {
	watches := CacheOptions(nodeName, policy.NewInterner(), policies)
	watches.NewInformer = newInformer(words)
	return manager.Options{
		Scheme:         scheme,
		Cache:          watches,
		MapperProvider: knownKinds,
	}
}

// CacheOptions says what an agent watches: all pods, namespaces and policies, of
// which it keeps what the model reads and nothing else, and its own Node.
//
// controller-runtime asks for built-in kinds in protobuf, and client-go streams
// their lists where the API server offers it (WatchList): each object becomes small
// as it arrives.
func CacheOptions(nodeName string, interner *policy.Interner, policies *policystore.Store) cache.Options {
	keepPod := keep(func(pod *corev1.Pod) *policy.Pod { return interner.Pod(ParsePod(pod, nodeName)) })
	return cache.Options{
		Scheme: watchedKinds(),
		ByObject: map[client.Object]cache.ByObject{
			&SlimPod{}: {Transform: func(object any) (any, error) {
				if slim, ok := object.(*SlimPod); ok {
					object = &slim.Pod
				}
				return keepPod(object)
			}},
			&corev1.Namespace{}: {Transform: keep(func(object *corev1.Namespace) *policy.Namespace {
				return &policy.Namespace{Name: object.Name, Labels: interner.Labels(object.Labels), Ends: object.DeletionTimestamp != nil}
			})},
			&networkingv1.NetworkPolicy{}: {Transform: keep(func(np *networkingv1.NetworkPolicy) *policystore.Held {
				return policies.Add(interner.Policy(policy.ParseNetworkPolicy(np)))
			})},
			&corev1.Node{}: {
				Field:     fields.OneTermEqualSelector("metadata.name", nodeName),
				Transform: trimNode,
			},
		},
	}
}

// watchedKinds returns the scheme of what an agent watches, in which a Pod is a slimPod.
func watchedKinds() *runtime.Scheme {
	scheme := runtime.NewScheme()
	core, networking := corev1.SchemeGroupVersion, networkingv1.SchemeGroupVersion
	scheme.AddKnownTypeWithName(core.WithKind("Pod"), &SlimPod{})
	scheme.AddKnownTypeWithName(core.WithKind("PodList"), &slimPodList{})
	scheme.AddKnownTypes(core, &corev1.Namespace{}, &corev1.NamespaceList{}, &corev1.Node{}, &corev1.NodeList{})
	scheme.AddKnownTypes(networking, &networkingv1.NetworkPolicy{}, &networkingv1.NetworkPolicyList{})
	metav1.AddToGroupVersion(scheme, core)
	metav1.AddToGroupVersion(scheme, networking)
	return scheme
}

// knownKinds maps the few kinds that an agent uses without asking the API server,
// which may be away when the agent starts.
func knownKinds(*rest.Config, *http.Client) (meta.RESTMapper, error) {
	mapper := meta.NewDefaultRESTMapper(nil)
	for _, kind := range []string{"Node", "Namespace"} {
		mapper.Add(corev1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeRoot)
	}
	for _, kind := range []string{"Pod", "ConfigMap"} {
		mapper.Add(corev1.SchemeGroupVersion.WithKind(kind), meta.RESTScopeNamespace)
	}
	mapper.Add(appsv1.SchemeGroupVersion.WithKind("DaemonSet"), meta.RESTScopeNamespace)
	mapper.Add(networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"), meta.RESTScopeNamespace)
	mapper.Add(v1alpha1.GroupVersion.WithKind("NodeEnforcement"), meta.RESTScopeRoot)
	return mapper, nil
}

// ParsePod reads a pod, with its uid where it is one of the given node: the other
// 100,000 uids would be megabytes.
func ParsePod(object *corev1.Pod, nodeName string) *policy.Pod {
	pod := policy.ParsePod(object)
	if pod.Node == nodeName {
		pod.UID = runtimeUID(object)
	} else {
		pod.Unusable = "" // the agent of the pod's own node reports it
	}
	return pod
}

// MirrorAnnotation holds, in the API's copy of a static pod, the uid by which the
// runtime knows it. The kubelet runs no other pod that has it.
const MirrorAnnotation = corev1.MirrorPodAnnotationKey

// runtimeUID is the uid by which the runtime knows a pod.
func runtimeUID(pod *corev1.Pod) types.UID {
	if uid, static := pod.Annotations[MirrorAnnotation]; static {
		return types.UID(uid)
	}
	return pod.UID
}

// keyed is a value of the model with the name of its object.
type keyed interface{ Key() types.NamespacedName }

// Kept is what an informer stores in place of an object: the value that the model
// shares, and what the informer itself reads. It must not be read with a client: it
// is no API object any more.
type Kept[T keyed] struct {
	Value           T
	resourceVersion string
}

// GetObjectMeta implements metav1.ObjectMetaAccessor. Informers ask for it to make
// keys and to compare versions, so it isn't worth its memory.
func (k *Kept[T]) GetObjectMeta() metav1.Object {
	key := k.Value.Key()
	return &metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, ResourceVersion: k.resourceVersion}
}

// keep returns the transformation of objects of one kind. It passes over what was
// transformed already.
func keep[O client.Object, T keyed](parse func(O) T) toolscache.TransformFunc {
	return func(object any) (any, error) {
		full, ok := object.(O)
		if !ok {
			return object, nil
		}
		return &Kept[T]{parse(full), full.GetResourceVersion()}, nil
	}
}

// HandlerOf returns the handler of events of kept objects. A deletion that was missed has a
// key, but perhaps no object.
func HandlerOf[T keyed](set func(T), remove func(types.NamespacedName)) toolscache.ResourceEventHandler {
	see := func(object any) {
		if k, ok := object.(*Kept[T]); ok {
			set(k.Value)
		}
	}
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    see,
		UpdateFunc: func(_, object any) { see(object) },
		DeleteFunc: func(object any) {
			if key, err := toolscache.DeletionHandlingObjectToName(object); err == nil {
				remove(key.AsNamespacedName())
			}
		},
	}
}

func trimNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	return &corev1.Node{
		ObjectMeta: trimMeta(node.ObjectMeta),
		Spec:       corev1.NodeSpec{PodCIDRs: node.Spec.PodCIDRs},
		Status:     corev1.NodeStatus{NodeInfo: corev1.NodeSystemInfo{BootID: node.Status.NodeInfo.BootID}},
	}, nil
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
