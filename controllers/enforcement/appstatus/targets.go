package appstatus

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/survey"
	"github.com/moat-dev/moat/controllers/enforcement/triggers"
)

// targets are the AppIsolations.
type targets struct{ reader client.Reader }

func (t targets) Selecting(ctx context.Context, pod *corev1.Pod) []reconcile.Request {
	var apps v1alpha1.AppIsolationList
	triggers.ListCached(ctx, t.reader, &apps, client.InNamespace(pod.Namespace))
	var requests []reconcile.Request
	for i := range apps.Items {
		if triggers.Selects(apps.Items[i].Spec.Selector.ToMeta(), pod) {
			requests = append(requests, triggers.RequestFor(&apps.Items[i]))
		}
	}
	return requests
}

func (t targets) WithPolicy(ctx context.Context, uid types.UID) []reconcile.Request {
	var apps v1alpha1.AppIsolationList
	triggers.ListCached(ctx, t.reader, &apps, client.MatchingFields{survey.AppPolicyIndex: string(uid)})
	var requests []reconcile.Request
	for i := range apps.Items {
		requests = append(requests, triggers.RequestFor(&apps.Items[i]))
	}
	return requests
}
