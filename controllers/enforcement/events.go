package enforcement

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// coalesce is how long an AppIsolation waits in the queue after the first event
// that concerns it: the reports of many nodes about one change become few
// reconciliations, and a person doesn't notice the delay.
const coalesce = 250 * time.Millisecond

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// affected finds the AppIsolations whose status an event may change. Objects of
// the first list need no mapping: every AppIsolation is reconciled at the start.
type affected struct {
	reader         client.Reader
	agentNamespace string
}

func (a affected) podHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			if !e.IsInInitialList {
				a.byPod(ctx, q, e.Object.(*corev1.Pod))
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			a.byPodChange(ctx, q, e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod))
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			a.byPod(ctx, q, e.Object.(*corev1.Pod))
		},
	}
}

func (a affected) reportHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			if !e.IsInInitialList {
				a.byNode(ctx, q, e.Object.GetName())
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			a.byReportChange(ctx, q, e.ObjectOld.(*v1alpha1.NodeEnforcement), e.ObjectNew.(*v1alpha1.NodeEnforcement))
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			a.byNode(ctx, q, e.Object.GetName())
		},
	}
}

func (a affected) byPodChange(ctx context.Context, q queue, before, after *corev1.Pod) {
	if isAgent(before, a.agentNamespace) || isAgent(after, a.agentNamespace) {
		if agentStateOf(before) != agentStateOf(after) || !sameSubject(before, after) {
			a.byNode(ctx, q, after.Spec.NodeName)
		}
		return
	}
	if !sameSubject(before, after) {
		a.bySubject(ctx, q, before)
		a.bySubject(ctx, q, after)
	}
}

func (a affected) byPod(ctx context.Context, q queue, pod *corev1.Pod) {
	if isAgent(pod, a.agentNamespace) {
		a.byNode(ctx, q, pod.Spec.NodeName)
		return
	}
	a.bySubject(ctx, q, pod)
}

// bySubject enqueues the AppIsolations that select the pod.
func (a affected) bySubject(ctx context.Context, q queue, pod *corev1.Pod) {
	if !isSubject(pod) {
		return
	}
	var apps v1alpha1.AppIsolationList
	a.list(ctx, &apps, client.InNamespace(pod.Namespace))
	for i := range apps.Items {
		if selects(&apps.Items[i], pod) {
			enqueue(q, &apps.Items[i])
		}
	}
}

// byNode enqueues the AppIsolations that select a pod of the node.
func (a affected) byNode(ctx context.Context, q queue, nodeName string) {
	if nodeName == "" {
		return
	}
	var pods corev1.PodList
	a.list(ctx, &pods, client.MatchingFields{podNodeIndex: nodeName})
	for i := range pods.Items {
		a.bySubject(ctx, q, &pods.Items[i])
	}
}

func (a affected) byReportChange(ctx context.Context, q queue, before, after *v1alpha1.NodeEnforcement) {
	if concernsWholeNode(&before.Status, &after.Status) {
		a.byNode(ctx, q, after.Name)
		return
	}
	for uid := range changedPolicies(&before.Status, &after.Status) {
		var apps v1alpha1.AppIsolationList
		a.list(ctx, &apps, client.MatchingFields{appPolicyIndex: string(uid)})
		for i := range apps.Items {
			enqueue(q, &apps.Items[i])
		}
	}
}

// list reads from the cache, which fails only while it isn't there yet or no
// longer: then every AppIsolation is, or has no need to be, reconciled anyway.
func (a affected) list(ctx context.Context, list client.ObjectList, options ...client.ListOption) {
	options = append(options, client.UnsafeDisableDeepCopy)
	if err := a.reader.List(ctx, list, options...); err != nil {
		log.FromContext(ctx).Error(err, "listing from the cache")
	}
}

func enqueue(q queue, app *v1alpha1.AppIsolation) {
	q.AddAfter(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(app)}, coalesce)
}

// concernsWholeNode says whether the report changed in what bears on policies
// that it doesn't name.
func concernsWholeNode(before, after *v1alpha1.NodeEnforcementStatus) bool {
	was, is := impairment(before.Conditions), impairment(after.Conditions)
	if (was == nil) != (is == nil) || before.Truncated != after.Truncated {
		return true
	}
	return was != nil && (was.Reason != is.Reason || was.Message != is.Message)
}

// changedPolicies returns the uids of the policies of which the two reports
// don't say the same.
func changedPolicies(before, after *v1alpha1.NodeEnforcementStatus) map[types.UID]struct{} {
	was, is := statements(before), statements(after)
	changed := map[types.UID]struct{}{}
	for uid, statement := range was {
		if is[uid] != statement {
			changed[uid] = struct{}{}
		}
	}
	for uid, statement := range is {
		if was[uid] != statement {
			changed[uid] = struct{}{}
		}
	}
	return changed
}

// statement is all that a report says of one policy.
type statement struct {
	generation int64
	failure    v1alpha1.PolicyFailure
}

func statements(report *v1alpha1.NodeEnforcementStatus) map[types.UID]statement {
	all := make(map[types.UID]statement, len(report.Policies))
	for _, policy := range report.Policies {
		all[policy.UID] = statement{generation: policy.Generation}
	}
	for _, failure := range report.Failures {
		all[failure.UID] = statement{generation: all[failure.UID].generation, failure: failure}
	}
	return all
}
