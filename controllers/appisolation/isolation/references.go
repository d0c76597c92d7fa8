package isolation

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// World is what an AppIsolation may refer to: all that ReferencesOf named, and
// more does no harm.
type World struct {
	// Config is nil where there is no IsolationConfig.
	Config *v1alpha1.IsolationConfigSpec
	// Services lacks those that don't exist.
	Services map[types.NamespacedName]Service
	// APIServer is the EndpointSlice that the API servers write, if there is one.
	APIServer []discoveryv1.EndpointSlice
	Nodes     []corev1.Node
}

// Service is a Service, and its EndpointSlices where it has no selector.
type Service struct {
	Object *corev1.Service
	Slices []discoveryv1.EndpointSlice
}

// References is what an AppIsolation refers to.
type References struct {
	Services map[types.NamespacedName]struct{}
	Entities map[v1alpha1.Entity]struct{}
}

// ReferencesOf returns what an AppIsolation refers to.
func ReferencesOf(app *v1alpha1.AppIsolation) References {
	refs := References{Services: map[types.NamespacedName]struct{}{}, Entities: map[v1alpha1.Entity]struct{}{}}
	for _, rule := range app.Spec.Ingress {
		refs.add(app.Namespace, rule.From)
	}
	for _, rule := range app.Spec.Egress {
		refs.add(app.Namespace, rule.To)
	}
	if allowsDNS(&app.Spec) {
		refs.Entities[v1alpha1.EntityDNS] = struct{}{}
	}
	return refs
}

func (r References) add(namespace string, peers []v1alpha1.Peer) {
	for _, peer := range peers {
		if peer.Service != nil {
			r.Services[serviceKey(peer.Service, namespace)] = struct{}{}
		}
		if peer.Entity != "" {
			r.Entities[peer.Entity] = struct{}{}
		}
	}
}

// Has reports whether an entity is among it.
func (r References) Has(entity v1alpha1.Entity) bool {
	_, found := r.Entities[entity]
	return found
}

// NeedNodes reports whether any of it is made of nodes. config may be nil.
func (r References) NeedNodes(config *v1alpha1.IsolationConfigSpec) bool {
	for entity := range r.Entities {
		if DependsOnNodes(config, entity) {
			return true
		}
	}
	return false
}

// ConfiguredEntities are those that the IsolationConfig says something of.
var ConfiguredEntities = []v1alpha1.Entity{
	v1alpha1.EntityInternet, v1alpha1.EntityDNS, v1alpha1.EntityNodes, v1alpha1.EntityIngressControllers, v1alpha1.EntityMonitoring,
}

// ChangedEntities returns the entities that aren't the same under two configs, nil
// being no config.
func ChangedEntities(before, after *v1alpha1.IsolationConfigSpec) []v1alpha1.Entity {
	if before == nil || after == nil {
		return ConfiguredEntities
	}
	nodes := !slices.Equal(before.NodeCIDRs, after.NodeCIDRs)
	var changed []v1alpha1.Entity
	for _, entity := range ConfiguredEntities {
		if !equality.Semantic.DeepEqual(meaning(before, entity), meaning(after, entity)) ||
			nodes && DependsOnNodes(after, entity) {
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

// DependsOnNodes says whether the entity is made of nodes, wholly or in part.
// config may be nil.
func DependsOnNodes(config *v1alpha1.IsolationConfigSpec, entity v1alpha1.Entity) bool {
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
