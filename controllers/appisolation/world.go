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
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
)

// get, list, watch: informers of what AppIsolations refer to.
// +kubebuilder:rbac:groups="",resources=services;nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=isolationconfigs,verbs=get;list;watch

// readWorld reads what refs names, from the cache.
func readWorld(ctx context.Context, reader client.Reader, refs isolation.References) (isolation.World, error) {
	w := isolation.World{Services: map[types.NamespacedName]isolation.Service{}}
	for key := range refs.Services {
		found, err := readService(ctx, reader, key)
		if err != nil {
			return isolation.World{}, err
		}
		if found != nil {
			w.Services[key] = *found
		}
	}
	var err error
	if len(refs.Entities) == 0 {
		return w, nil
	}
	if w.Config, err = readConfig(ctx, reader); err != nil {
		return isolation.World{}, err
	}
	if refs.Has(v1alpha1.EntityKubeAPIServer) {
		if w.APIServer, err = readAPIServer(ctx, reader); err != nil {
			return isolation.World{}, err
		}
	}
	if refs.NeedNodes(w.Config) {
		var nodes corev1.NodeList
		if err := reader.List(ctx, &nodes, client.UnsafeDisableDeepCopy); err != nil {
			return isolation.World{}, fmt.Errorf("listing nodes: %w", err)
		}
		w.Nodes = nodes.Items
	}
	return w, nil
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
func readService(ctx context.Context, reader client.Reader, key types.NamespacedName) (*isolation.Service, error) {
	found := &isolation.Service{Object: &corev1.Service{}}
	err := reader.Get(ctx, key, found.Object)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading Service %s: %w", key, err)
	case len(found.Object.Spec.Selector) == 0:
		found.Slices, err = readSlices(ctx, reader, key)
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

// readAPIServer returns the EndpointSlice that the API servers write, if there is one. It leaves
// out other EndpointSlices of that Service: each user who may write EndpointSlices in its
// namespace can label one.
func readAPIServer(ctx context.Context, reader client.Reader) ([]discoveryv1.EndpointSlice, error) {
	slice := &discoveryv1.EndpointSlice{}
	err := reader.Get(ctx, isolation.APIServerSlice, slice)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading EndpointSlice %s: %w", isolation.APIServerSlice, err)
	}
	return []discoveryv1.EndpointSlice{*slice}, nil
}
