// Package appisolation turns each AppIsolation into one NetworkPolicy, which it
// owns, and reports Accepted, ResolvedRefs and Programmed.
//
// What it promises: it writes only a policy whose controller reference names the
// AppIsolation's uid; what others change in that policy's spec is undone; it
// writes nothing where nothing differs. A deleted AppIsolation's policy goes by
// garbage collection, so that no finalizer can hang.
//
// Status has two writers: this package and controllers/enforcement. Both patch
// with the resourceVersion that they read, so that neither can undo the other's
// write, nor write about a generation that has been replaced.
package appisolation

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
	"github.com/moat-dev/moat/controllers/fairqueue"
	"github.com/moat-dev/moat/controllers/pace"
)

const (
	// workers is how many AppIsolations are at work at a time: while one waits for a
	// busy API server, others go on.
	workers = 4

	// staleRetry is how long to wait for the cache after a write that lost a race.
	staleRetry = 100 * time.Millisecond

	// invalidRetry is when to offer a refused policy again. The spec doesn't
	// change by waiting, but it may be an admission policy that refuses it.
	invalidRetry = time.Minute
)

// get, list, watch: the informer. The status is written by patch.
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=appisolations,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=appisolations/status,verbs=patch
//
// get, list, watch: the informer, which sees drift and foreign policies. create:
// a new policy. patch: server-side apply, which repairs one. delete: mode Disabled.
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch;create;patch;delete

// Reconciler keeps the NetworkPolicy of each AppIsolation.
type Reconciler struct {
	client client.Client
	pace   *pace.Pace
}

// Options of the controller.
type Options struct {
	// StatusEvery is the least time between two writes of one AppIsolation's
	// status; zero: pace.Every. Policies are written without delay.
	StatusEvery time.Duration
}

// Setup adds the controller to the manager, whose cache must follow
// CacheByObject.
func Setup(ctx context.Context, mgr manager.Manager, options Options) error {
	if err := addIndex(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	events := dependents{reader: mgr.GetClient()}
	err := builder.ControllerManagedBy(mgr).
		Named("appisolation").
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, NewQueue: fairqueue.For(workers)}).
		For(&v1alpha1.AppIsolation{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&networkingv1.NetworkPolicy{}, handler.EnqueueRequestsFromMapFunc(policyToApp)).
		Watches(&corev1.Service{}, handler.EnqueueRequestsFromMapFunc(events.ofService)).
		Watches(&discoveryv1.EndpointSlice{}, handler.EnqueueRequestsFromMapFunc(events.ofSlice)).
		Watches(&v1alpha1.IsolationConfig{}, events.configHandler()).
		Watches(&corev1.Node{}, events.nodeHandler()).
		Complete(&Reconciler{client: mgr.GetClient(), pace: pace.New(options.StatusEvery)})
	if err != nil {
		return fmt.Errorf("setting up the appisolation controller: %w", err)
	}
	return nil
}

// Reconcile fetches one AppIsolation, makes its policy so, and reports.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	app := &v1alpha1.AppIsolation{}
	if err := r.client.Get(ctx, request.NamespacedName, app); err != nil {
		r.pace.Forget(request.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	if app.DeletionTimestamp != nil {
		return reconcile.Result{}, nil
	}
	w, err := readWorld(ctx, r.client, isolation.ReferencesOf(app))
	if err != nil {
		return reconcile.Result{}, err
	}
	desired, problems := isolation.Policy(app, w)
	result, err := r.program(ctx, app, desired)
	if isStale(err) {
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	}
	result.resolved = resolvedRefs(problems)
	wait, reportErr := r.report(ctx, app, result)
	if isStale(reportErr) {
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	}
	if err == nil {
		err = reportErr
	}
	if err == nil && wait > 0 {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if err == nil && result.accepted.Status == metav1.ConditionFalse {
		return reconcile.Result{RequeueAfter: invalidRetry}, nil
	}
	return reconcile.Result{}, err
}

// program makes the stored policy the desired one of app. Where it returns an
// error that a retry may cure, the outcome says what failed.
func (r *Reconciler) program(ctx context.Context, app *v1alpha1.AppIsolation, desired *networkingv1.NetworkPolicy) (outcome, error) {
	live, err := r.livePolicy(ctx, client.ObjectKeyFromObject(desired))
	if err != nil {
		return notProgrammed(nil, v1alpha1.ReasonApplyFailed, err.Error()), err
	}
	owned := live
	if live != nil && !owns(app, live) {
		owned = nil
	}
	switch {
	case app.Spec.Mode == v1alpha1.ModeDisabled:
		return r.disable(ctx, owned)
	case live == nil:
		return outcomeOf(nil, desired, create(ctx, r.client, desired))
	case owned == nil:
		return notProgrammed(nil, v1alpha1.ReasonNameConflict, fmt.Sprintf(
			"NetworkPolicy %s exists and is not owned by this AppIsolation, so it is left alone: delete or rename it, or rename the AppIsolation", live.Name)), nil
	case upToDate(live, desired):
		return programmed(live), nil
	}
	return outcomeOf(live, desired, repair(ctx, r.client, live, desired))
}

// livePolicy returns nil where there is no such policy.
func (r *Reconciler) livePolicy(ctx context.Context, key client.ObjectKey) (*networkingv1.NetworkPolicy, error) {
	live := &networkingv1.NetworkPolicy{}
	err := r.client.Get(ctx, key, live)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("reading NetworkPolicy %s: %w", key, err)
	}
	return live, nil
}

func (r *Reconciler) disable(ctx context.Context, owned *networkingv1.NetworkPolicy) (outcome, error) {
	if owned != nil {
		if err := remove(ctx, r.client, owned); err != nil {
			return notProgrammed(owned, v1alpha1.ReasonApplyFailed, err.Error()), err
		}
	}
	return notProgrammed(nil, v1alpha1.ReasonDisabled, "mode is Disabled, so there is no policy and the pods are as open as without this AppIsolation"), nil
}

// outcomeOf judges a write of stored, before which the policy was live.
func outcomeOf(live, stored *networkingv1.NetworkPolicy, err error) (outcome, error) {
	switch {
	case err == nil:
		return programmed(stored), nil
	case apierrors.IsInvalid(err):
		// The user's spec, not a fault.
		return invalid(live, err), nil
	}
	return notProgrammed(live, v1alpha1.ReasonApplyFailed, err.Error()), err
}

// report patches the status where the outcome changes it. Where it was written a
// moment ago, it returns how long to wait instead.
func (r *Reconciler) report(ctx context.Context, app *v1alpha1.AppIsolation, result outcome) (wait time.Duration, err error) {
	updated := app.DeepCopy()
	result.report(app.Generation, &updated.Status)
	if equality.Semantic.DeepEqual(app.Status, updated.Status) {
		return 0, nil
	}
	key := client.ObjectKeyFromObject(app)
	if wait := r.pace.Wait(key, time.Now()); wait > 0 {
		return wait, nil
	}
	r.pace.Wrote(key, time.Now())
	err = r.client.Status().Patch(ctx, updated, client.MergeFromWithOptions(app, client.MergeFromWithOptimisticLock{}))
	if isStale(err) {
		r.pace.Forget(key)
	}
	return 0, err
}
