// Package enforcement joins the reports of the nodes' agents with the pods, and
// writes into the status of each AppIsolation on which nodes it is enforced.
//
// The agents never write a per-policy object: that would cost policies × nodes
// writes. Each writes its one NodeEnforcement, only the operator watches these,
// and one write per AppIsolation and change goes out.
//
// judge.go decides, and knows nothing of AppIsolations, so that the status of
// hand-written policies can use it too.
package enforcement

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// staleRetry is how long to wait for the cache after a write that lost a race.
const staleRetry = 100 * time.Millisecond

// get, list, watch: informers of the pods that policies select, of the agents'
// pods, and of the agents' reports.
// +kubebuilder:rbac:groups="",resources=pods,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=nodeenforcements,verbs=get;list;watch
//
// get, list, watch: the informer. The status is written by patch.
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=appisolations,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=appisolations/status,verbs=patch

// Reconciler keeps selectedPods, enforcement, failures, Enforced and Ready in the
// status of each AppIsolation.
type Reconciler struct {
	client         client.Client
	agentNamespace string
}

// Setup adds the controller to the manager, whose cache must follow
// CacheByObject. agentNamespace is where the agents' pods run.
func Setup(ctx context.Context, mgr manager.Manager, agentNamespace string) error {
	if err := addIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	events := affected{reader: mgr.GetClient(), agentNamespace: agentNamespace}
	err := builder.ControllerManagedBy(mgr).
		Named("enforcement").
		For(&v1alpha1.AppIsolation{}).
		Watches(&corev1.Pod{}, events.podHandler()).
		Watches(&v1alpha1.NodeEnforcement{}, events.reportHandler()).
		Complete(&Reconciler{client: mgr.GetClient(), agentNamespace: agentNamespace})
	if err != nil {
		return fmt.Errorf("setting up the enforcement controller: %w", err)
	}
	return nil
}

// Reconcile fetches one AppIsolation and what bears on it, judges, and reports.
//
// It stays silent until Programmed speaks of the spec's present generation: the
// Enforced condition that is there carries an older observedGeneration, which
// `kubectl wait` doesn't accept, and the write of Programmed brings it back here.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	app := &v1alpha1.AppIsolation{}
	if err := r.client.Get(ctx, request.NamespacedName, app); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	programmed := programmedNow(app)
	if app.DeletionTimestamp != nil || programmed == nil {
		return reconcile.Result{}, nil
	}
	subjects, err := r.subjects(ctx, app)
	if err != nil {
		return reconcile.Result{}, err
	}
	result := notProgrammed(*programmed)
	if programmed.Status == metav1.ConditionTrue && app.Status.Policy != nil {
		nodes, err := r.nodes(ctx, subjects)
		if err != nil {
			return reconcile.Result{}, err
		}
		result = judge(*app.Status.Policy, nodes)
	}
	err = r.report(ctx, app, result, len(subjects))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	}
	return reconcile.Result{}, err
}

// subjects returns the pods to which the AppIsolation applies.
func (r *Reconciler) subjects(ctx context.Context, app *v1alpha1.AppIsolation) ([]*corev1.Pod, error) {
	var pods corev1.PodList
	err := r.client.List(ctx, &pods, client.InNamespace(app.Namespace),
		client.MatchingLabelsSelector{Selector: selectorOf(app)})
	if err != nil {
		return nil, fmt.Errorf("listing the selected pods: %w", err)
	}
	var subjects []*corev1.Pod
	for i := range pods.Items {
		if isSubject(&pods.Items[i]) {
			subjects = append(subjects, &pods.Items[i])
		}
	}
	return subjects, nil
}

// nodes returns what is known of each node that runs one of the pods.
func (r *Reconciler) nodes(ctx context.Context, pods []*corev1.Pod) ([]node, error) {
	agents, err := r.agents(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var nodes []node
	for _, pod := range pods {
		name := pod.Spec.NodeName
		if seen[name] {
			continue
		}
		seen[name] = true
		report, err := r.nodeReport(ctx, name)
		if err != nil {
			return nil, err
		}
		nodes = append(nodes, node{name: name, agent: agents[name], report: report})
	}
	return nodes, nil
}

// agents returns the state of the agent of each node that has one. While one
// agent pod replaces another, the better of the two counts.
func (r *Reconciler) agents(ctx context.Context) (map[string]agentState, error) {
	var pods corev1.PodList
	err := r.client.List(ctx, &pods, client.InNamespace(r.agentNamespace), client.MatchingLabels(agentLabels))
	if err != nil {
		return nil, fmt.Errorf("listing the agents' pods: %w", err)
	}
	agents := make(map[string]agentState, len(pods.Items))
	for i := range pods.Items {
		name := pods.Items[i].Spec.NodeName
		agents[name] = max(agents[name], agentStateOf(&pods.Items[i]))
	}
	return agents, nil
}

// nodeReport returns nil where the node's agent has never reported.
func (r *Reconciler) nodeReport(ctx context.Context, name string) (*v1alpha1.NodeEnforcementStatus, error) {
	report := &v1alpha1.NodeEnforcement{}
	err := r.client.Get(ctx, client.ObjectKey{Name: name}, report)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading NodeEnforcement %s: %w", name, err)
	}
	return &report.Status, nil
}

// report patches the status where the verdict changes it, and only if it is
// still the status that was read: see the note on writers in
// controllers/appisolation.
func (r *Reconciler) report(ctx context.Context, app *v1alpha1.AppIsolation, result verdict, selectedPods int) error {
	updated := app.DeepCopy()
	result.report(app.Generation, selectedPods, &updated.Status)
	if equality.Semantic.DeepEqual(app.Status, updated.Status) {
		return nil
	}
	return r.client.Status().Patch(ctx, updated, client.MergeFromWithOptions(app, client.MergeFromWithOptimisticLock{}))
}

func selects(app *v1alpha1.AppIsolation, pod *corev1.Pod) bool {
	return selectorOf(app).Matches(labels.Set(pod.Labels))
}

// selectorOf selects nothing where the selector can't be read: such an object
// passed no validation, and has no policy.
func selectorOf(app *v1alpha1.AppIsolation) labels.Selector {
	selector, err := metav1.LabelSelectorAsSelector(app.Spec.Selector.ToMeta())
	if err != nil {
		return labels.Nothing()
	}
	return selector
}
