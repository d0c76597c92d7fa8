package policyproof

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/controllers/enforcement/judge"
	"github.com/moat-dev/moat/controllers/enforcement/survey"
	"github.com/moat-dev/moat/controllers/enforcement/triggers"
)

// targets are the hand-written policies.
type targets struct{ reader client.Reader }

func (t targets) Selecting(ctx context.Context, pod *corev1.Pod) []reconcile.Request {
	return t.requests(ctx, func(policy *networkingv1.NetworkPolicy) bool {
		return triggers.Selects(&policy.Spec.PodSelector, pod)
	}, client.InNamespace(pod.Namespace))
}

func (t targets) WithPolicy(ctx context.Context, uid types.UID) []reconcile.Request {
	return t.requests(ctx, func(*networkingv1.NetworkPolicy) bool { return true }, client.MatchingFields{survey.PolicyUIDIndex: string(uid)})
}

func (t targets) requests(ctx context.Context, wanted func(*networkingv1.NetworkPolicy) bool, options ...client.ListOption) []reconcile.Request {
	var policies networkingv1.NetworkPolicyList
	triggers.ListCached(ctx, t.reader, &policies, options...)
	var requests []reconcile.Request
	for i := range policies.Items {
		policy := &policies.Items[i]
		if _, generated := judge.AppOf(policy); !generated && wanted(policy) {
			requests = append(requests, triggers.RequestFor(policy))
		}
	}
	return requests
}
