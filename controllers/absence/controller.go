// Package absence looks for nodes without an agent at work. It says so in
// status.agent of the node's NodeEnforcement, in metrics, and by a taint: where the
// guard of pod starts stands and no agent opens it, a new pod has no network, and so
// the scheduler must place none there.
//
// What it promises: it changes one taint of a Node and nothing else, and loses no
// taint of another writer. It taints few nodes at most, and none that an agent
// returns to or that isn't Ready itself. The taint goes when the agent is back, and
// when Moat is removed, in each way to do so: see removal.go.
//
// decide.go decides, and is pure. A pass reads the whole cluster from the cache, so
// that the bound holds; it writes only what differs.
package absence

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/agents"
	"github.com/moat-dev/moat/controllers/pace"
	"github.com/moat-dev/moat/dataplane/placement"
)

// get, list, watch: the informers. The right to patch Nodes is in a role of its own,
// config/rbac/operator_taints_role.yaml, since it belongs to an admission policy; the
// release's own objects are in config/rbac/operator_release_role.yaml.
// +kubebuilder:rbac:groups="",resources=nodes;namespaces;pods,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=nodeenforcements,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=nodeenforcements/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

const (
	// passEvery is the least time between two passes over the cluster.
	passEvery = 500 * time.Millisecond

	// statesAPass is how many states one pass writes at most. An operator that sees
	// 5,000 reports for the first time writes each; the taints don't wait for that.
	statesAPass = 50
)

// cluster is the one object of the queue.
var cluster = reconcile.Request{}

// Options of the controllers of this package.
type Options struct {
	// Namespace is where Moat is installed.
	Namespace string
	// Mode is what is done where a node has no agent; empty: Ignore.
	Mode Mode

	// patience is set by tests; zero: absentAfter.
	patience time.Duration
}

// Reconciler keeps the taint of all Nodes and the state of all agents. One runs at a
// time.
type Reconciler struct {
	client  client.Client
	options Options
	taints  *taints
	passes  *pace.Pace
	states  *pace.Pace
	now     func() time.Time

	began time.Time            // when the first pass was made
	back  map[string]time.Time // when a Node was found Ready again, by its name
}

// Setup adds the controllers to the manager, whose cache must follow CacheByObject.
func Setup(mgr manager.Manager, options Options) error {
	if options.Mode == "" || options.Mode == Ignore {
		return nil
	}
	if err := registerMetrics(); err != nil {
		return err
	}
	t := &taints{client: mgr.GetClient(), live: mgr.GetAPIReader(), events: mgr.GetEventRecorder("moat-operator")}
	if err := setupRemoval(mgr, options, t); err != nil {
		return err
	}
	b := builder.ControllerManagedBy(mgr).
		Named("absence").
		Watches(&corev1.Node{}, always, builder.WithPredicates(nodeChanges())).
		Watches(&corev1.Pod{}, always, builder.WithPredicates(agentChanges(options.Namespace))).
		Watches(&v1alpha1.NodeEnforcement{}, always, builder.WithPredicates(reportChanges())).
		Watches(&appsv1.DaemonSet{}, always)
	if options.Mode == Taint {
		b = watchRelease(b)
	}
	err := b.Complete(&Reconciler{
		client:  mgr.GetClient(),
		options: options,
		taints:  t,
		passes:  pace.New(passEvery),
		states:  pace.New(0),
		now:     time.Now,
		back:    map[string]time.Time{},
	})
	if err != nil {
		return fmt.Errorf("setting up the controller of absent agents: %w", err)
	}
	return nil
}

// Reconcile makes one pass: look, decide, write the taints, write the states.
// Without the agents' DaemonSet there is nothing to say of agents.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	if wait := r.passes.Wait(request.NamespacedName, r.now()); wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	r.passes.Wrote(request.NamespacedName, r.now())
	daemonSet := &appsv1.DaemonSet{}
	err := r.client.Get(ctx, client.ObjectKey{Namespace: r.options.Namespace, Name: agents.DaemonSetName}, daemonSet)
	if apierrors.IsNotFound(err) || err == nil && daemonSet.DeletionTimestamp != nil {
		setCounts(counts{})
		return reconcile.Result{}, nil
	}
	if err != nil {
		return reconcile.Result{}, fmt.Errorf("reading DaemonSet %s: %w", agents.DaemonSetName, err)
	}
	nodes, err := r.look(ctx, daemonSet)
	if err != nil {
		return reconcile.Result{}, err
	}
	may, err := r.mayTaint(ctx, daemonSet)
	if err != nil {
		return reconcile.Result{}, err
	}
	d := decide(nodes, cmp.Or(r.options.patience, absentAfter), r.now())
	if !may {
		d = d.withoutTaints(nodes)
	}
	setCounts(d.counts)
	if err := r.writeTaints(ctx, d); err != nil {
		return reconcile.Result{}, err
	}
	left, err := r.writeStates(ctx, d.agents)
	if left && (d.next == 0 || d.next > passEvery) {
		d.next = passEvery
	}
	return reconcile.Result{RequeueAfter: d.next}, err
}

// mayTaint is false while Moat is removed, and where an agent couldn't return to a
// node that has the taint.
func (r *Reconciler) mayTaint(ctx context.Context, daemonSet *appsv1.DaemonSet) (bool, error) {
	if r.options.Mode != Taint {
		return false, nil
	}
	if !tolerates(daemonSet) {
		log.FromContext(ctx).Info("No node gets the taint of absent agents, since the agents don't tolerate it", "taint", v1alpha1.AgentAbsentTaint)
		return false, nil
	}
	reason, err := removalReason(ctx, r.client, r.options.Namespace)
	return reason == "", err
}

// tolerates says whether the agents go on a node that has the taint and no other.
func tolerates(daemonSet *appsv1.DaemonSet) bool {
	tainted := &corev1.Node{Spec: corev1.NodeSpec{Taints: []corev1.Taint{taint}}}
	return len(placement.Of(&daemonSet.Spec.Template.Spec, tainted).Repelling) == 0
}

// look reads the cluster from the cache. What it returns is a copy.
func (r *Reconciler) look(ctx context.Context, daemonSet *appsv1.DaemonSet) ([]node, error) {
	pods, err := r.agentPods(ctx)
	if err != nil {
		return nil, err
	}
	var reports v1alpha1.NodeEnforcementList
	if err := r.client.List(ctx, &reports, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing NodeEnforcements: %w", err)
	}
	byName := make(map[string]*v1alpha1.NodeEnforcement, len(reports.Items))
	for i := range reports.Items {
		byName[reports.Items[i].Name] = &reports.Items[i]
	}
	var list corev1.NodeList
	if err := r.client.List(ctx, &list, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("listing Nodes: %w", err)
	}
	if r.began.IsZero() {
		r.began = r.now()
	}
	maps.DeleteFunc(r.back, func(_ string, since time.Time) bool {
		return r.now().Sub(since) > afterGap(cmp.Or(r.options.patience, absentAfter))
	})
	nodes := make([]node, 0, len(list.Items))
	for i := range list.Items {
		object := &list.Items[i]
		if object.DeletionTimestamp != nil {
			continue
		}
		n := node{
			name:    object.Name,
			created: object.CreationTimestamp.Time,
			ready:   isReady(object),
			tainted: isTainted(object),
			wanted:  placement.Of(&daemonSet.Spec.Template.Spec, object).Wanted(),
			agent:   pods[object.Name],
			report:  reportOf(object, byName[object.Name]),
		}
		n.heard = r.heardSince(n)
		nodes = append(nodes, n)
	}
	return nodes, nil
}

// heardSince says since when the operator hears of a node without a gap.
func (r *Reconciler) heardSince(n node) time.Time {
	if n.ready && n.report != nil && n.report.agent != nil && n.report.agent.State == v1alpha1.AgentUnknown {
		r.back[n.name] = r.now()
	}
	if since := r.back[n.name]; since.After(r.began) {
		return since
	}
	return r.began
}

// agentPods returns the better state of the agent pods of each node: while one
// replaces another there are two.
func (r *Reconciler) agentPods(ctx context.Context) (map[string]podState, error) {
	var list corev1.PodList
	err := r.client.List(ctx, &list, client.InNamespace(r.options.Namespace), client.MatchingLabels(agents.Labels()), client.UnsafeDisableDeepCopy)
	if err != nil {
		return nil, fmt.Errorf("listing the agents: %w", err)
	}
	states := make(map[string]podState, len(list.Items))
	for i := range list.Items {
		pod := &list.Items[i]
		if !agents.Is(pod, r.options.Namespace) {
			continue
		}
		state := podNotReady
		if agents.Ready(pod) {
			state = podReady
		}
		states[pod.Spec.NodeName] = max(states[pod.Spec.NodeName], state)
	}
	return states, nil
}

// reportOf returns nil for the report of a Node that was there before under the same
// name: it may be of another machine.
func reportOf(object *corev1.Node, stored *v1alpha1.NodeEnforcement) *report {
	if stored == nil {
		return nil
	}
	for _, owner := range stored.OwnerReferences {
		if owner.Kind == "Node" && owner.UID == object.UID {
			return &report{guarded: isGuarded(stored), agent: stored.Status.Agent}
		}
	}
	return nil
}

// isGuarded reports whether the node's guard closes new pods, or some of them: it stands
// also where other pods have addresses that it doesn't cover.
func isGuarded(stored *v1alpha1.NodeEnforcement) bool {
	condition := meta.FindStatusCondition(stored.Status.Conditions, v1alpha1.NodeConditionPodStartGuarded)
	return condition != nil &&
		(condition.Status == metav1.ConditionTrue || condition.Reason == v1alpha1.NodeReasonPodsOutsidePodCIDRs)
}

func isReady(object *corev1.Node) bool {
	return slices.ContainsFunc(object.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// writeTaints takes taints away before it puts others.
func (r *Reconciler) writeTaints(ctx context.Context, d decision) error {
	taken := r.taints.takeAll(ctx, d.untaint, "an agent is at work, or none is wanted")
	put := r.taints.putAll(ctx, d.taint, func() bool {
		reason, err := removalReason(ctx, r.client, r.options.Namespace)
		return reason == "" && err == nil
	})
	return errors.Join(taken, put)
}
