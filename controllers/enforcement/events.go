package enforcement

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/agents"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
)

// coalesce is how long a target waits in the queue after the first event
// that concerns it: the reports of many nodes about one change become few
// reconciliations, and a person doesn't notice the delay.
const coalesce = 250 * time.Millisecond

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// atOnce is a queue that lets nothing wait: a pod that is new, or has new labels, or an agent
// that isn't Ready any more makes a status untrue from that moment on.
type atOnce struct{ queue }

// AddAfter implements workqueue.TypedDelayingInterface.
func (q atOnce) AddAfter(request reconcile.Request, _ time.Duration) { q.Add(request) }

// targets are the objects of one kind that get a status.
type targets interface {
	// selecting returns those that select the pod, which is a subject.
	selecting(ctx context.Context, pod *corev1.Pod) []reconcile.Request
	// withPolicy returns those whose policy has the uid.
	withPolicy(ctx context.Context, uid types.UID) []reconcile.Request
}

// affected finds the targets whose status an event may change. Objects of the
// first list need no mapping: every target is reconciled at the start.
type affected struct {
	reader         client.Reader
	agentNamespace string
	targets        targets
}

func (a affected) podHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			if !e.IsInInitialList {
				a.byPod(ctx, atOnce{q}, e.Object.(*corev1.Pod))
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			a.byPodChange(ctx, atOnce{q}, e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod))
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
	if agents.Is(before, a.agentNamespace) || agents.Is(after, a.agentNamespace) {
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
	if agents.Is(pod, a.agentNamespace) {
		a.byNode(ctx, q, pod.Spec.NodeName)
		return
	}
	a.bySubject(ctx, q, pod)
}

// bySubject enqueues the targets that select the pod.
func (a affected) bySubject(ctx context.Context, q queue, pod *corev1.Pod) {
	if isSubject(pod) {
		enqueue(q, a.targets.selecting(ctx, pod))
	}
}

// byNode enqueues the targets that select a pod of the node.
func (a affected) byNode(ctx context.Context, q queue, nodeName string) {
	if nodeName != "" {
		a.bySubjectsOf(ctx, q, nodeName, func(*corev1.Pod) bool { return true })
	}
}

// bySubjectsOf enqueues the targets that select one of some pods of the node.
func (a affected) bySubjectsOf(ctx context.Context, q queue, nodeName string, concerned func(*corev1.Pod) bool) {
	var pods corev1.PodList
	listCached(ctx, a.reader, &pods, client.MatchingFields{podNodeIndex: nodeName})
	for i := range pods.Items {
		if concerned(&pods.Items[i]) {
			a.bySubject(ctx, q, &pods.Items[i])
		}
	}
}

func (a affected) byReportChange(ctx context.Context, q queue, before, after *v1alpha1.NodeEnforcement) {
	if judge.ConcernsWholeNode(&before.Status, &after.Status) {
		a.byNode(ctx, q, after.Name)
		return
	}
	for uid := range judge.ChangedPolicies(&before.Status, &after.Status) {
		enqueue(q, a.targets.withPolicy(ctx, uid))
	}
	if changed := judge.ChangedPods(&before.Status, &after.Status); len(changed) > 0 {
		a.bySubjectsOf(ctx, q, after.Name, func(pod *corev1.Pod) bool { return changed[digestOf(pod)] })
	}
}

// nodeHandler is for what a report is compared with: the Node and its boot.
func (a affected) nodeHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			if !e.IsInInitialList {
				a.byNode(ctx, q, e.Object.GetName())
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			before, after := e.ObjectOld.(*corev1.Node), e.ObjectNew.(*corev1.Node)
			if before.UID != after.UID || before.Status.NodeInfo.BootID != after.Status.NodeInfo.BootID {
				a.byNode(ctx, q, after.Name)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			a.byNode(ctx, q, e.Object.GetName())
		},
	}
}

// policyHandler is for Exclusive and Overlapping: a policy bears on whatever
// selects one of its pods.
func (a affected) policyHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			if !e.IsInInitialList {
				a.byPolicy(ctx, q, e.Object.(*networkingv1.NetworkPolicy))
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			before, after := e.ObjectOld.(*networkingv1.NetworkPolicy), e.ObjectNew.(*networkingv1.NetworkPolicy)
			if before.Generation != after.Generation {
				a.byPolicy(ctx, q, before)
				a.byPolicy(ctx, q, after)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			a.byPolicy(ctx, q, e.Object.(*networkingv1.NetworkPolicy))
		},
	}
}

// byPolicy enqueues the targets that select a pod which the policy selects.
func (a affected) byPolicy(ctx context.Context, q queue, policy *networkingv1.NetworkPolicy) {
	var pods corev1.PodList
	listCached(ctx, a.reader, &pods, client.InNamespace(policy.Namespace),
		client.MatchingLabelsSelector{Selector: judge.SelectorOf(&policy.Spec.PodSelector)})
	seen := map[string]bool{}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if text := labels.Set(pod.Labels).String(); isSubject(pod) && !seen[text] {
			seen[text] = true
			a.bySubject(ctx, q, pod)
		}
	}
}

// listCached reads from the cache, which fails only while it isn't there yet or no
// longer: then every target is, or has no need to be, reconciled anyway.
func listCached(ctx context.Context, reader client.Reader, list client.ObjectList, options ...client.ListOption) {
	options = append(options, client.UnsafeDisableDeepCopy)
	if err := reader.List(ctx, list, options...); err != nil {
		log.FromContext(ctx).Error(err, "listing from the cache")
	}
}

func enqueue(q queue, requests []reconcile.Request) {
	for _, request := range requests {
		q.AddAfter(request, coalesce)
	}
}
