package enforcement

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
)

// appTargets are the AppIsolations.
type appTargets struct{ reader client.Reader }

func (t appTargets) selecting(ctx context.Context, pod *corev1.Pod) []reconcile.Request {
	var apps v1alpha1.AppIsolationList
	listCached(ctx, t.reader, &apps, client.InNamespace(pod.Namespace))
	var requests []reconcile.Request
	for i := range apps.Items {
		if selects(apps.Items[i].Spec.Selector.ToMeta(), pod) {
			requests = append(requests, requestFor(&apps.Items[i]))
		}
	}
	return requests
}

func (t appTargets) withPolicy(ctx context.Context, uid types.UID) []reconcile.Request {
	var apps v1alpha1.AppIsolationList
	listCached(ctx, t.reader, &apps, client.MatchingFields{appPolicyIndex: string(uid)})
	var requests []reconcile.Request
	for i := range apps.Items {
		requests = append(requests, requestFor(&apps.Items[i]))
	}
	return requests
}

// policyTargets are the hand-written policies.
type policyTargets struct{ reader client.Reader }

func (t policyTargets) selecting(ctx context.Context, pod *corev1.Pod) []reconcile.Request {
	return t.requests(ctx, func(policy *networkingv1.NetworkPolicy) bool {
		return selects(&policy.Spec.PodSelector, pod)
	}, client.InNamespace(pod.Namespace))
}

func (t policyTargets) withPolicy(ctx context.Context, uid types.UID) []reconcile.Request {
	return t.requests(ctx, func(*networkingv1.NetworkPolicy) bool { return true }, client.MatchingFields{policyUIDIndex: string(uid)})
}

func (t policyTargets) requests(ctx context.Context, wanted func(*networkingv1.NetworkPolicy) bool, options ...client.ListOption) []reconcile.Request {
	var policies networkingv1.NetworkPolicyList
	listCached(ctx, t.reader, &policies, options...)
	var requests []reconcile.Request
	for i := range policies.Items {
		policy := &policies.Items[i]
		if _, generated := judge.AppOf(policy); !generated && wanted(policy) {
			requests = append(requests, requestFor(policy))
		}
	}
	return requests
}

func requestFor(object client.Object) reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKeyFromObject(object)}
}

func selects(selector *metav1.LabelSelector, pod *corev1.Pod) bool {
	return judge.SelectorOf(selector).Matches(labels.Set(pod.Labels))
}
