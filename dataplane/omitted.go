package dataplane

import (
	"context"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/moat-dev/moat/dataplane/backoff"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policystore"
	"github.com/moat-dev/moat/dataplane/watch"
)

// readOmittedEvery is how often a policy is read again whose rules were omitted, and for which there
// is room now. Many nodes may do so at once.
const readOmittedEvery = time.Second

// policyHandler has the model follow the policies, and the store forget those that have gone.
func (a *Agent) policyHandler() toolscache.ResourceEventHandler {
	follow := watch.HandlerOf(a.model.Hold, a.model.DeletePolicy)
	return toolscache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { follow.OnAdd(object, false) },
		UpdateFunc: follow.OnUpdate,
		DeleteFunc: func(object any) {
			last := object
			if missed, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
				last = missed.Obj
			}
			if k, ok := last.(*watch.Kept[*policystore.Held]); ok {
				a.options.Policies.Remove(k.Value)
			}
			follow.OnDelete(object)
		},
	}
}

// readOmitted reads policies of this node's pods whose rules were omitted, once there is room
// for them, until the context ends. The watch doesn't bring them again.
func (a *Agent) readOmitted(ctx context.Context) {
	for backoff.Sleep(ctx, readOmittedEvery) {
		fitting := a.options.Policies.Fitting()
		i := slices.IndexFunc(fitting, func(h *policystore.Held) bool { return a.model.Concerns(h.Policy()) })
		if i < 0 {
			continue
		}
		np, key := &networkingv1.NetworkPolicy{}, fitting[i].Key()
		switch err := a.live.Get(ctx, key, np); {
		case err == nil:
			a.options.Policies.Refill(fitting[i], policy.ParseNetworkPolicy(np))
		case !apierrors.IsNotFound(err) && ctx.Err() == nil: // the watch says that it has gone
			a.log.Error(err, "A policy can't be read again, and the pods that it selects stay closed", "policy", key)
		}
	}
}
