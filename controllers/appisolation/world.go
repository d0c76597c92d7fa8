package appisolation

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// get, list, watch: informers of what AppIsolations refer to.
// +kubebuilder:rbac:groups="",resources=services;nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=isolationconfigs,verbs=get;list;watch

// readWorld reads what refs names, from the cache.
func readWorld(ctx context.Context, reader client.Reader, refs references) (world, error) {
	w := world{services: map[types.NamespacedName]service{}}
	for key := range refs.services {
		found, err := readService(ctx, reader, key)
		if err != nil {
			return world{}, err
		}
		if found != nil {
			w.services[key] = *found
		}
	}
	var err error
	if len(refs.entities) == 0 {
		return w, nil
	}
	if w.config, err = readConfig(ctx, reader); err != nil {
		return world{}, err
	}
	if refs.has(v1alpha1.EntityKubeAPIServer) {
		if w.apiServer, err = readAPIServer(ctx, reader); err != nil {
			return world{}, err
		}
	}
	if refs.needNodes(w.config) {
		var nodes corev1.NodeList
		if err := reader.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
			return world{}, fmt.Errorf("listing nodes: %w", err)
		}
		w.nodes = nodes.Items
	}
	return w, nil
}

func (r references) needNodes(config *v1alpha1.IsolationConfigSpec) bool {
	for entity := range r.entities {
		if dependsOnNodes(config, entity) {
			return true
		}
	}
	return false
}

// readConfig returns nil where there is no IsolationConfig.
func readConfig(ctx context.Context, reader client.Reader) (*v1alpha1.IsolationConfigSpec, error) {
	config := &v1alpha1.IsolationConfig{}
	err := reader.Get(ctx, client.ObjectKey{Name: v1alpha1.IsolationConfigName}, config)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading IsolationConfig %s: %w", v1alpha1.IsolationConfigName, err)
	}
	return &config.Spec, nil
}

// readService returns nil where there is no such Service.
func readService(ctx context.Context, reader client.Reader, key types.NamespacedName) (*service, error) {
	found := &service{object: &corev1.Service{}}
	err := reader.Get(ctx, key, found.object)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading Service %s: %w", key, err)
	case len(found.object.Spec.Selector) == 0:
		found.slices, err = readSlices(ctx, reader, key)
	}
	return found, err
}

// readSlices returns the EndpointSlices of a Service in no order.
func readSlices(ctx context.Context, reader client.Reader, key types.NamespacedName) ([]discoveryv1.EndpointSlice, error) {
	var list discoveryv1.EndpointSliceList
	err := reader.List(ctx, &list, client.InNamespace(key.Namespace), client.MatchingLabels{discoveryv1.LabelServiceName: key.Name})
	if err != nil {
		return nil, fmt.Errorf("listing the EndpointSlices of Service %s: %w", key, err)
	}
	return list.Items, nil
}

// readAPIServer returns the EndpointSlice that the API servers write, none where there is
// none. Others of that Service aren't the API server's: anybody who may write EndpointSlices in
// its namespace can label one.
func readAPIServer(ctx context.Context, reader client.Reader) ([]discoveryv1.EndpointSlice, error) {
	slice := &discoveryv1.EndpointSlice{}
	err := reader.Get(ctx, apiServerSlice, slice)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading EndpointSlice %s: %w", apiServerSlice, err)
	}
	return []discoveryv1.EndpointSlice{*slice}, nil
}
