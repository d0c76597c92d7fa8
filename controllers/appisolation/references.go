package appisolation

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// world is what an AppIsolation may refer to: all that referencesOf named, and
// more does no harm.
type world struct {
	// config is nil where there is no IsolationConfig.
	config *v1alpha1.IsolationConfigSpec
	// services lacks those that don't exist.
	services map[types.NamespacedName]service
	// apiServer is the EndpointSlice that the API servers write, if there is one.
	apiServer []discoveryv1.EndpointSlice
	nodes     []corev1.Node
}

// service is a Service, and its EndpointSlices where it has no selector.
type service struct {
	object *corev1.Service
	slices []discoveryv1.EndpointSlice
}

// references is what an AppIsolation refers to.
type references struct {
	services map[types.NamespacedName]struct{}
	entities map[v1alpha1.Entity]struct{}
}

func referencesOf(app *v1alpha1.AppIsolation) references {
	refs := references{services: map[types.NamespacedName]struct{}{}, entities: map[v1alpha1.Entity]struct{}{}}
	for _, rule := range app.Spec.Ingress {
		refs.add(app.Namespace, rule.From)
	}
	for _, rule := range app.Spec.Egress {
		refs.add(app.Namespace, rule.To)
	}
	if allowsDNS(&app.Spec) {
		refs.entities[v1alpha1.EntityDNS] = struct{}{}
	}
	return refs
}

func (r references) add(namespace string, peers []v1alpha1.Peer) {
	for _, peer := range peers {
		if peer.Service != nil {
			r.services[serviceKey(peer.Service, namespace)] = struct{}{}
		}
		if peer.Entity != "" {
			r.entities[peer.Entity] = struct{}{}
		}
	}
}

func (r references) has(entity v1alpha1.Entity) bool {
	_, found := r.entities[entity]
	return found
}

// keys returns the values under which the cache's index finds the AppIsolation.
func (r references) keys() []string {
	var keys []string
	for key := range maps.Keys(r.services) {
		keys = append(keys, serviceIndexKey(key))
	}
	for entity := range maps.Keys(r.entities) {
		keys = append(keys, entityIndexKey(entity))
	}
	slices.Sort(keys)
	return keys
}

func serviceIndexKey(key types.NamespacedName) string { return "Service " + key.String() }
func entityIndexKey(entity v1alpha1.Entity) string    { return "Entity " + string(entity) }

// configuredEntities are those that the IsolationConfig says something of.
var configuredEntities = []v1alpha1.Entity{
	v1alpha1.EntityInternet, v1alpha1.EntityDNS, v1alpha1.EntityNodes, v1alpha1.EntityIngressControllers, v1alpha1.EntityMonitoring,
}

// changedEntities returns the entities that aren't the same under two configs, nil
// being no config.
func changedEntities(before, after *v1alpha1.IsolationConfigSpec) []v1alpha1.Entity {
	if before == nil || after == nil {
		return configuredEntities
	}
	nodes := !slices.Equal(before.NodeCIDRs, after.NodeCIDRs)
	var changed []v1alpha1.Entity
	for _, entity := range configuredEntities {
		if !equality.Semantic.DeepEqual(meaning(before, entity), meaning(after, entity)) ||
			nodes && dependsOnNodes(after, entity) {
			changed = append(changed, entity)
		}
	}
	return changed
}

// meaning returns the part of a config that says what an entity is.
func meaning(config *v1alpha1.IsolationConfigSpec, entity v1alpha1.Entity) any {
	switch entity {
	case v1alpha1.EntityInternet:
		return config.ClusterCIDRs
	case v1alpha1.EntityNodes:
		return config.NodeCIDRs
	case v1alpha1.EntityDNS:
		return config.DNS
	case v1alpha1.EntityIngressControllers:
		return config.IngressControllers
	case v1alpha1.EntityMonitoring:
		return config.Monitoring
	case v1alpha1.EntityAnywhere, v1alpha1.EntitySameNamespace, v1alpha1.EntityAllNamespaces, v1alpha1.EntityKubeAPIServer:
	}
	return nil
}

// dependsOnNodes says whether the entity is made of nodes, wholly or in part.
// config may be nil.
func dependsOnNodes(config *v1alpha1.IsolationConfigSpec, entity v1alpha1.Entity) bool {
	if entity == v1alpha1.EntityNodes || entity == v1alpha1.EntityKubeAPIServer {
		return true
	}
	var part *v1alpha1.EntityConfig
	switch {
	case config == nil:
	case entity == v1alpha1.EntityDNS && config.DNS != nil:
		part = &config.DNS.EntityConfig
	case entity == v1alpha1.EntityIngressControllers:
		part = config.IngressControllers
	case entity == v1alpha1.EntityMonitoring:
		part = config.Monitoring
	}
	return part != nil && slices.ContainsFunc(part.Peers, func(peer v1alpha1.ConfigPeer) bool {
		return peer.Entity == v1alpha1.ConfigEntityNodes
	})
}
