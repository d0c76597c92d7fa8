// Package enforcement joins the reports of the nodes' agents with the pods, and
// writes on which nodes each policy is enforced: into the status of its
// AppIsolation, or into the PolicyEnforcement of a policy that was written by hand.
//
// The agents never write a per-policy object: that would cost policies × nodes
// writes. Each writes its one NodeEnforcement, only the operator watches these,
// and one write per policy and change goes out.
//
// The package judge decides where a policy is enforced, and which policies allow more than
// another.
package enforcement

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
	"github.com/moat-dev/moat/controllers/fairqueue"
	"github.com/moat-dev/moat/controllers/pace"
)

const (
	// staleRetry is how long to wait for the cache after a write that lost a race.
	staleRetry = 100 * time.Millisecond

	// workers is how many objects of a kind are at work at a time: while one waits
	// for a busy API server, others go on.
	workers = 4
)

// get, list, watch: informers of the pods that policies select, of the agents'
// pods, of the agents' reports, and of the Nodes that these are about.
// +kubebuilder:rbac:groups="",resources=pods;nodes,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=nodeenforcements,verbs=get;list;watch
//
// get, list, watch: the informers. The status is written by patch.
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=appisolations,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=appisolations/status,verbs=patch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch
//
// create, patch: the events of AppIsolations; a repeated one is patched.
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconciler keeps selectedPods, enforcement, failures, Enforced, Exclusive,
// Overlapping and Ready in the status of each AppIsolation.
type Reconciler struct {
	survey
	reporting Reporting
	pace      *pace.Pace
	patience  *patience
	events    events.EventRecorder
}

// Setup adds the controllers to the manager, whose cache must follow
// CacheByObject.
func Setup(ctx context.Context, mgr manager.Manager, options Options) error {
	if err := addIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	if err := setupPolicies(mgr, options); err != nil {
		return err
	}
	changes := affected{
		reader: mgr.GetClient(), agentNamespace: options.AgentNamespace, targets: appTargets{reader: mgr.GetClient()},
	}
	err := builder.ControllerManagedBy(mgr).
		Named("enforcement").
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, NewQueue: fairqueue.For(workers)}).
		For(&v1alpha1.AppIsolation{}).
		Watches(&corev1.Pod{}, changes.podHandler()).
		Watches(&v1alpha1.NodeEnforcement{}, changes.reportHandler()).
		Watches(&corev1.Node{}, changes.nodeHandler()).
		Watches(&networkingv1.NetworkPolicy{}, changes.policyHandler()).
		Complete(&Reconciler{
			survey:    survey{client: mgr.GetClient(), agentNamespace: options.AgentNamespace},
			reporting: options.Reporting,
			pace:      pace.New(options.writeEvery),
			patience:  newPatience(),
			events:    mgr.GetEventRecorder("moat-operator"),
		})
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
//
// What can't be written yet isn't looked at either, but for Enforced that is True: that it
// isn't any more waits for nothing.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	app := &v1alpha1.AppIsolation{}
	if err := r.client.Get(ctx, request.NamespacedName, app); err != nil {
		r.pace.Forget(request.NamespacedName)
		r.patience.forget(request.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	wait := r.pace.Wait(request.NamespacedName, time.Now())
	if wait > 0 && !isEnforced(app.Status.Conditions, app.Generation) {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	programmed := programmedNow(app)
	if app.DeletionTimestamp != nil || programmed == nil {
		return reconcile.Result{}, nil
	}
	subjects, err := r.subjects(ctx, app.Namespace, judge.SelectorOf(app.Spec.Selector.ToMeta()))
	if err != nil {
		return reconcile.Result{}, err
	}
	result, others, err := r.judge(ctx, app, *programmed, subjects)
	if err != nil {
		return reconcile.Result{}, err
	}
	if wait > 0 && !result.Falls() {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	return r.report(ctx, app, result, others, len(subjects))
}

// judge says where the policy is enforced, and which others select its pods.
func (r *Reconciler) judge(ctx context.Context, app *v1alpha1.AppIsolation, programmed metav1.Condition, subjects []*corev1.Pod) (result judge.Verdict, others []metav1.Condition, err error) {
	if programmed.Status != metav1.ConditionTrue || app.Status.Policy == nil {
		return notProgrammed(programmed), judge.WithoutPolicy(), nil
	}
	result, err = r.enforcement(ctx, r.reporting, *app.Status.Policy, subjects)
	if err != nil {
		return judge.Verdict{}, nil, err
	}
	// Where the cache doesn't have the policy yet, the conditions stay until it
	// does: its event brings this back here.
	n, found, err := r.neighbours(ctx, app.Namespace, app.Status.Policy.UID, subjects)
	if err == nil && found {
		others = n.Conditions()
	}
	return result, others, err
}

// report patches the status where the verdict changes it, and only if it is
// still the status that was read: see the note on writers in
// controllers/appisolation.
func (r *Reconciler) report(ctx context.Context, app *v1alpha1.AppIsolation, result judge.Verdict, others []metav1.Condition, selectedPods int) (reconcile.Result, error) {
	updated := app.DeepCopy()
	fill(&updated.Status, app.Generation, selectedPods, result, others)
	if equality.Semantic.DeepEqual(app.Status, updated.Status) {
		return reconcile.Result{}, nil
	}
	key := client.ObjectKeyFromObject(app)
	if result.Progressing() && !speaksOf(app.Status.Conditions, app.Generation) {
		if wait := r.patience.wait(key, app.Generation, time.Now()); wait > 0 {
			return reconcile.Result{RequeueAfter: wait}, nil
		}
	}
	before := app.Status.DeepCopy()
	r.pace.Wrote(key, time.Now())
	err := r.client.Status().Patch(ctx, updated, client.MergeFromWithOptions(app, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		r.pace.Forget(key)
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	}
	if err == nil {
		r.patience.forget(key)
		r.tell(updated, before.Conditions)
	}
	return reconcile.Result{}, err
}

// tell records an event where Ready says something else than before. Progress is
// none: each pod that is scheduled to another node makes some. A repeated event is
// one Event with a count.
func (r *Reconciler) tell(app *v1alpha1.AppIsolation, before []metav1.Condition) {
	was := meta.FindStatusCondition(before, v1alpha1.ConditionReady)
	is := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionReady)
	if is == nil || is.Reason == v1alpha1.ReasonProgressing || was != nil && was.Reason == is.Reason {
		return
	}
	kind := corev1.EventTypeWarning
	if is.Status == metav1.ConditionTrue || is.Reason == v1alpha1.ReasonDisabled {
		kind = corev1.EventTypeNormal
	}
	// Without the resourceVersion, with which no two events are the same.
	regarding := &corev1.ObjectReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "AppIsolation", Namespace: app.Namespace, Name: app.Name, UID: app.UID,
	}
	r.events.Eventf(regarding, nil, kind, is.Reason, "Enforce", "%s", is.Message)
}
