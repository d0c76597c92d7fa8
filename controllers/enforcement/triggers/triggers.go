package triggers

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/agents"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
	"github.com/moat-dev/moat/controllers/enforcement/survey"
	"github.com/moat-dev/moat/controllers/fairqueue"
)

// Delay is how long a target waits in the queue after the first event that concerns it. The
// reports of many nodes about one change become few reconciliations, and a person doesn't
// notice the delay.
const Delay = 250 * time.Millisecond

// workers is how many objects of a kind are at work at a time: while one waits for a busy API
// server, others go on.
const workers = 4

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// atOnce is a queue in which nothing waits. A pod that is new or has new labels makes a status
// untrue from that moment on, and so does an agent that isn't Ready any more.
type atOnce struct{ queue }

// AddAfter implements workqueue.TypedDelayingInterface.
func (q atOnce) AddAfter(request reconcile.Request, _ time.Duration) { q.Add(request) }

// Targets are the objects of one kind that get a status. They are read from the cache.
type Targets interface {
	// Selecting returns those that select the pod, which is a subject.
	Selecting(ctx context.Context, pod *corev1.Pod) []reconcile.Request
	// WithPolicy returns those whose policy has the uid.
	WithPolicy(ctx context.Context, uid types.UID) []reconcile.Request
}

// Triggers finds the targets whose status an event may change. Objects of an informer's first
// list trigger nothing: every target is reconciled at the start. Its handlers are safe for
// concurrent use.
type Triggers struct {
	// Reader reads from the manager's cache, which the package survey has prepared.
	Reader client.Reader
	// AgentNamespace is where the agents' pods run.
	AgentNamespace string
	Targets        Targets
}

// Controller returns a builder of the controller that reconciles the targets, with what
// concerns every kind of target: pods, reports and Nodes. The caller adds the rest.
func (t Triggers) Controller(mgr manager.Manager, name string, target client.Object) *builder.Builder {
	return builder.ControllerManagedBy(mgr).
		Named(name).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, NewQueue: fairqueue.For(workers)}).
		For(target).
		Watches(&corev1.Pod{}, t.PodHandler()).
		Watches(&v1alpha1.NodeEnforcement{}, t.ReportHandler()).
		Watches(&corev1.Node{}, t.NodeHandler())
}

// PodHandler is for the pods that policies select, and for the agents' pods.
func (t Triggers) PodHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			if !e.IsInInitialList {
				t.byPod(ctx, atOnce{q}, e.Object.(*corev1.Pod))
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			t.byPodChange(ctx, atOnce{q}, e.ObjectOld.(*corev1.Pod), e.ObjectNew.(*corev1.Pod))
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			t.byPod(ctx, q, e.Object.(*corev1.Pod))
		},
	}
}

// byNodeCreated is for objects that have the name of their node.
func (t Triggers) byNodeCreated(ctx context.Context, e event.CreateEvent, q queue) {
	if !e.IsInInitialList {
		t.byNode(ctx, q, e.Object.GetName())
	}
}

// ReportHandler is for what the agents report.
func (t Triggers) ReportHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: t.byNodeCreated,
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			t.byReportChange(ctx, q, e.ObjectOld.(*v1alpha1.NodeEnforcement), e.ObjectNew.(*v1alpha1.NodeEnforcement))
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			t.byNode(ctx, q, e.Object.GetName())
		},
	}
}

func (t Triggers) byPodChange(ctx context.Context, q queue, before, after *corev1.Pod) {
	if agents.Is(before, t.AgentNamespace) || agents.Is(after, t.AgentNamespace) {
		if survey.AgentStateOf(before) != survey.AgentStateOf(after) || !survey.SameSubject(before, after) {
			t.byNode(ctx, q, after.Spec.NodeName)
		}
		return
	}
	if !survey.SameSubject(before, after) {
		t.bySubject(ctx, q, before)
		t.bySubject(ctx, q, after)
	}
}

func (t Triggers) byPod(ctx context.Context, q queue, pod *corev1.Pod) {
	if agents.Is(pod, t.AgentNamespace) {
		t.byNode(ctx, q, pod.Spec.NodeName)
		return
	}
	t.bySubject(ctx, q, pod)
}

// bySubject enqueues the targets that select the pod.
func (t Triggers) bySubject(ctx context.Context, q queue, pod *corev1.Pod) {
	if survey.IsSubject(pod) {
		enqueue(q, t.Targets.Selecting(ctx, pod))
	}
}

// byNode enqueues the targets that select a pod of the node.
func (t Triggers) byNode(ctx context.Context, q queue, nodeName string) {
	if nodeName != "" {
		t.bySubjectsOf(ctx, q, nodeName, func(*corev1.Pod) bool { return true })
	}
}

// bySubjectsOf enqueues the targets that select one of some pods of the node.
func (t Triggers) bySubjectsOf(ctx context.Context, q queue, nodeName string, concerned func(*corev1.Pod) bool) {
	var pods corev1.PodList
	ListCached(ctx, t.Reader, &pods, client.MatchingFields{survey.PodNodeIndex: nodeName})
	for i := range pods.Items {
		if concerned(&pods.Items[i]) {
			t.bySubject(ctx, q, &pods.Items[i])
		}
	}
}

func (t Triggers) byReportChange(ctx context.Context, q queue, before, after *v1alpha1.NodeEnforcement) {
	if judge.ConcernsWholeNode(&before.Status, &after.Status) {
		t.byNode(ctx, q, after.Name)
		return
	}
	for uid := range judge.ChangedPolicies(&before.Status, &after.Status) {
		enqueue(q, t.Targets.WithPolicy(ctx, uid))
	}
	if changed := judge.ChangedPods(&before.Status, &after.Status); len(changed) > 0 {
		t.bySubjectsOf(ctx, q, after.Name, func(pod *corev1.Pod) bool { return changed[survey.DigestOf(pod)] })
	}
}

// NodeHandler is for what a report is compared with: the Node and its boot.
func (t Triggers) NodeHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: t.byNodeCreated,
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			before, after := e.ObjectOld.(*corev1.Node), e.ObjectNew.(*corev1.Node)
			if before.UID != after.UID || before.Status.NodeInfo.BootID != after.Status.NodeInfo.BootID {
				t.byNode(ctx, q, after.Name)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			t.byNode(ctx, q, e.Object.GetName())
		},
	}
}

// PolicyHandler is for a status that speaks of other policies: a policy concerns each target
// that selects one of its pods.
func (t Triggers) PolicyHandler() handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) {
			if !e.IsInInitialList {
				t.byPolicy(ctx, q, e.Object.(*networkingv1.NetworkPolicy))
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			before, after := e.ObjectOld.(*networkingv1.NetworkPolicy), e.ObjectNew.(*networkingv1.NetworkPolicy)
			if before.Generation != after.Generation {
				t.byPolicy(ctx, q, before)
				t.byPolicy(ctx, q, after)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) {
			t.byPolicy(ctx, q, e.Object.(*networkingv1.NetworkPolicy))
		},
	}
}

// byPolicy enqueues the targets that select a pod which the policy selects.
func (t Triggers) byPolicy(ctx context.Context, q queue, policy *networkingv1.NetworkPolicy) {
	var pods corev1.PodList
	ListCached(ctx, t.Reader, &pods, client.InNamespace(policy.Namespace),
		client.MatchingLabelsSelector{Selector: judge.SelectorOf(&policy.Spec.PodSelector)})
	seen := map[string]bool{}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if text := labels.Set(pod.Labels).String(); survey.IsSubject(pod) && !seen[text] {
			seen[text] = true
			t.bySubject(ctx, q, pod)
		}
	}
}

// ListCached reads from the cache into list, whose items are shared: nothing may write to
// them. It logs an error and leaves the list empty. The cache fails only before it is filled,
// when every target is still to be reconciled, and after its end.
func ListCached(ctx context.Context, reader client.Reader, list client.ObjectList, options ...client.ListOption) {
	options = append(options, client.UnsafeDisableDeepCopy)
	if err := reader.List(ctx, list, options...); err != nil {
		log.FromContext(ctx).Error(err, "listing from the cache")
	}
}

func enqueue(q queue, requests []reconcile.Request) {
	for _, request := range requests {
		q.AddAfter(request, Delay)
	}
}

// RequestFor returns the request to reconcile the object.
func RequestFor(object client.Object) reconcile.Request {
	return reconcile.Request{NamespacedName: client.ObjectKeyFromObject(object)}
}

// Selects says whether the selector selects the pod.
func Selects(selector *metav1.LabelSelector, pod *corev1.Pod) bool {
	return judge.SelectorOf(selector).Matches(labels.Set(pod.Labels))
}
