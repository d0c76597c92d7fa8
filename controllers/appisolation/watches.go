package appisolation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
)

// referenceIndex finds the AppIsolations that refer to something.
const referenceIndex = "spec.references"

// CacheByObject returns how the manager's cache must hold what AppIsolations refer
// to: no EndpointSlice of a Service with a selector, which are nearly all of a
// cluster and change with each pod, and of a Node its addresses, with what
// controllers/absence reads of it.
func CacheByObject() (map[client.Object]cache.ByObject, error) {
	handMade, err := labels.NewRequirement(discoveryv1.LabelManagedBy, selection.NotEquals, []string{"endpointslice-controller.k8s.io"})
	if err != nil {
		return nil, fmt.Errorf("selecting EndpointSlices: %w", err)
	}
	return map[client.Object]cache.ByObject{
		&discoveryv1.EndpointSlice{}: {Label: labels.NewSelector().Add(*handMade)},
		&corev1.Node{}:               {Transform: trimNode},
	}, nil
}

func trimNode(object any) (any, error) {
	node, ok := object.(*corev1.Node)
	if !ok {
		return object, nil
	}
	trimmed := &corev1.Node{
		TypeMeta: node.TypeMeta,
		ObjectMeta: metav1.ObjectMeta{
			Name:              node.Name,
			UID:               node.UID,
			ResourceVersion:   node.ResourceVersion,
			CreationTimestamp: node.CreationTimestamp,
			DeletionTimestamp: node.DeletionTimestamp,
			Labels:            node.Labels,
		},
		Spec:   corev1.NodeSpec{PodCIDRs: node.Spec.PodCIDRs, Taints: node.Spec.Taints},
		Status: corev1.NodeStatus{Addresses: node.Status.Addresses, NodeInfo: corev1.NodeSystemInfo{BootID: node.Status.NodeInfo.BootID}},
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			trimmed.Status.Conditions = []corev1.NodeCondition{{Type: condition.Type, Status: condition.Status}}
		}
	}
	return trimmed, nil
}

func addIndex(ctx context.Context, indexer client.FieldIndexer) error {
	err := indexer.IndexField(ctx, &v1alpha1.AppIsolation{}, referenceIndex, func(object client.Object) []string {
		return referenceKeys(isolation.ReferencesOf(object.(*v1alpha1.AppIsolation)))
	})
	if err != nil {
		return fmt.Errorf("indexing AppIsolations by what they refer to: %w", err)
	}
	return nil
}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// dependents finds the AppIsolations that an event may compile to another policy.
type dependents struct {
	reader client.Reader
}

// policyToApp goes by name and not by owner, so that the end of a foreign policy
// lets the AppIsolation have the name.
func policyToApp(_ context.Context, policy client.Object) []reconcile.Request {
	name, found := strings.CutPrefix(policy.GetName(), isolation.NamePrefix)
	if !found {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: policy.GetNamespace(), Name: name}}}
}

func (d dependents) ofService(ctx context.Context, object client.Object) []reconcile.Request {
	return d.of(ctx, serviceIndexKey(client.ObjectKeyFromObject(object)))
}

func (d dependents) ofSlice(ctx context.Context, slice client.Object) []reconcile.Request {
	key := types.NamespacedName{Namespace: slice.GetNamespace(), Name: slice.GetLabels()[discoveryv1.LabelServiceName]}
	requests := d.of(ctx, serviceIndexKey(key))
	if client.ObjectKeyFromObject(slice) == isolation.APIServerSlice {
		requests = append(requests, d.of(ctx, entityIndexKey(v1alpha1.EntityKubeAPIServer))...)
	}
	return requests
}

// configHandler enqueues only the AppIsolations that the change concerns: nearly every one that
// closes egress depends on DNS, and few on the rest.
func (d dependents) configHandler() handler.EventHandler {
	changed := func(ctx context.Context, q queue, name string, before, after *v1alpha1.IsolationConfigSpec) {
		if name == v1alpha1.IsolationConfigName {
			d.enqueue(ctx, q, isolation.ChangedEntities(before, after)...)
		}
	}
	spec := func(object client.Object) *v1alpha1.IsolationConfigSpec {
		return &object.(*v1alpha1.IsolationConfig).Spec
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			changed(ctx, q, e.Object.GetName(), nil, spec(e.Object))
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			changed(ctx, q, e.ObjectNew.GetName(), spec(e.ObjectOld), spec(e.ObjectNew))
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			changed(ctx, q, e.Object.GetName(), spec(e.Object), nil)
		},
	}
}

// nodeHandler ignores all changes of a Node but those of its addresses: every
// kubelet writes its Node all the time.
func (d dependents) nodeHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			if !e.IsInInitialList { // Every AppIsolation is reconciled at the start.
				d.ofNodes(ctx, q)
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			if !sameAddresses(e.ObjectOld.(*corev1.Node), e.ObjectNew.(*corev1.Node)) {
				d.ofNodes(ctx, q)
			}
		},
		DeleteFunc: func(ctx context.Context, _ event.DeleteEvent, q queue) { d.ofNodes(ctx, q) },
	}
}

func sameAddresses(before, after *corev1.Node) bool {
	return slices.Equal(before.Spec.PodCIDRs, after.Spec.PodCIDRs) &&
		equality.Semantic.DeepEqual(before.Status.Addresses, after.Status.Addresses)
}

func (d dependents) ofNodes(ctx context.Context, q queue) {
	config, err := readConfig(ctx, d.reader)
	if err != nil {
		log.FromContext(ctx).Error(err, "reading from the cache")
	}
	entities := []v1alpha1.Entity{v1alpha1.EntityKubeAPIServer}
	for _, entity := range isolation.ConfiguredEntities {
		if isolation.DependsOnNodes(config, entity) {
			entities = append(entities, entity)
		}
	}
	d.enqueue(ctx, q, entities...)
}

func (d dependents) enqueue(ctx context.Context, q queue, entities ...v1alpha1.Entity) {
	for _, entity := range entities {
		for _, request := range d.of(ctx, entityIndexKey(entity)) {
			q.Add(request)
		}
	}
}

// of reads from the cache, which fails only while it isn't there yet or no longer:
// then every AppIsolation is, or has no need to be, reconciled anyway.
func (d dependents) of(ctx context.Context, key string) []reconcile.Request {
	var apps v1alpha1.AppIsolationList
	if err := d.reader.List(ctx, &apps, client.MatchingFields{referenceIndex: key}, client.UnsafeDisableDeepCopy); err != nil {
		log.FromContext(ctx).Error(err, "listing from the cache")
	}
	requests := make([]reconcile.Request, 0, len(apps.Items))
	for i := range apps.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&apps.Items[i])})
	}
	return requests
}

// referenceKeys returns the values under which the cache's index finds the AppIsolation.
func referenceKeys(refs isolation.References) []string {
	var keys []string
	for key := range maps.Keys(refs.Services) {
		keys = append(keys, serviceIndexKey(key))
	}
	for entity := range maps.Keys(refs.Entities) {
		keys = append(keys, entityIndexKey(entity))
	}
	slices.Sort(keys)
	return keys
}

func serviceIndexKey(key types.NamespacedName) string { return "Service " + key.String() }
func entityIndexKey(entity v1alpha1.Entity) string    { return "Entity " + string(entity) }
