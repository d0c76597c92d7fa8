package enforcement

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
	"github.com/moat-dev/moat/controllers/fairqueue"
	"github.com/moat-dev/moat/controllers/pace"
)

// get, list, watch: the informer. create: one for each hand-written policy.
// delete: those that speak of no policy any more. The status is written by patch.
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=policyenforcements,verbs=get;list;watch;create;delete
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=policyenforcements/status,verbs=patch

// PolicyReconciler keeps the PolicyEnforcement of each hand-written policy. It
// never writes the policy itself.
type PolicyReconciler struct {
	survey
	pace     *pace.Pace
	patience *patience
}

// setupPolicies adds the controller of PolicyEnforcements to the manager, or, where
// hand-written policies aren't reported, what removes old PolicyEnforcements: they
// would go on to say what was true once.
func setupPolicies(mgr manager.Manager, options Options) error {
	if options.Reporting != ReportAll {
		if err := mgr.Add(withdrawal{client: mgr.GetClient()}); err != nil {
			return fmt.Errorf("setting up the withdrawal of PolicyEnforcements: %w", err)
		}
		return nil
	}
	changes := affected{
		reader: mgr.GetClient(), agentNamespace: options.AgentNamespace, targets: policyTargets{reader: mgr.GetClient()},
	}
	err := builder.ControllerManagedBy(mgr).
		Named("policyenforcement").
		WithOptions(controller.Options{MaxConcurrentReconciles: workers, NewQueue: fairqueue.For(workers)}).
		For(&networkingv1.NetworkPolicy{}).
		Watches(&v1alpha1.PolicyEnforcement{}, handler.EnqueueRequestsFromMapFunc(samePolicy)).
		Watches(&corev1.Pod{}, changes.podHandler()).
		Watches(&v1alpha1.NodeEnforcement{}, changes.reportHandler()).
		Watches(&corev1.Node{}, changes.nodeHandler()).
		Complete(&PolicyReconciler{
			survey:   survey{client: mgr.GetClient(), agentNamespace: options.AgentNamespace},
			pace:     pace.New(options.writeEvery),
			patience: newPatience(),
		})
	if err != nil {
		return fmt.Errorf("setting up the policyenforcement controller: %w", err)
	}
	return nil
}

func samePolicy(_ context.Context, object client.Object) []reconcile.Request {
	return []reconcile.Request{requestFor(object)}
}

// Reconcile fetches one policy and what bears on it, judges, and reports. The
// PolicyEnforcement of a policy that is gone goes by garbage collection.
func (r *PolicyReconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	policy := &networkingv1.NetworkPolicy{}
	if err := r.client.Get(ctx, request.NamespacedName, policy); err != nil {
		r.pace.Forget(request.NamespacedName)
		r.patience.forget(request.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	_, generated := judge.AppOf(policy)
	if policy.DeletionTimestamp != nil || generated {
		return reconcile.Result{}, nil
	}
	stored, err := r.ensure(ctx, policy)
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return reconcile.Result{}, nil // The policy goes too.
	}
	if apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	}
	if err != nil || stored == nil {
		return reconcile.Result{}, err
	}
	wait := r.pace.Wait(request.NamespacedName, time.Now())
	if wait > 0 && !isEnforced(stored.Status.Conditions, policy.Generation) {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	return r.judge(ctx, policy, stored, wait)
}

// judge says where the policy is enforced, and reports it, but not before the wait is over
// unless it isn't enforced any more.
func (r *PolicyReconciler) judge(ctx context.Context, policy *networkingv1.NetworkPolicy, stored *v1alpha1.PolicyEnforcement, wait time.Duration) (reconcile.Result, error) {
	subjects, err := r.subjects(ctx, policy.Namespace, judge.SelectorOf(&policy.Spec.PodSelector))
	if err != nil {
		return reconcile.Result{}, err
	}
	reference := v1alpha1.PolicyReference{Name: policy.Name, UID: policy.UID, Generation: policy.Generation}
	result, err := r.enforcement(ctx, ReportAll, reference, subjects)
	if err != nil {
		return reconcile.Result{}, err
	}
	if wait > 0 && !result.Falls() {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if result.Progressing() && (stored.Status.PolicyUID != policy.UID || !speaksOf(stored.Status.Conditions, policy.Generation)) {
		if wait := r.patience.wait(client.ObjectKeyFromObject(policy), policy.Generation, time.Now()); wait > 0 {
			return reconcile.Result{RequeueAfter: wait}, nil
		}
	}
	return r.report(ctx, stored, policyStatus(result, reference, len(subjects), stored.Status))
}

// ensure returns the policy's PolicyEnforcement. It returns nil after it deleted
// one that belongs to an earlier policy of the name: the event of its end comes back.
func (r *PolicyReconciler) ensure(ctx context.Context, policy *networkingv1.NetworkPolicy) (*v1alpha1.PolicyEnforcement, error) {
	stored := &v1alpha1.PolicyEnforcement{}
	err := r.client.Get(ctx, client.ObjectKeyFromObject(policy), stored)
	switch {
	case apierrors.IsNotFound(err):
		stored = &v1alpha1.PolicyEnforcement{ObjectMeta: metav1.ObjectMeta{
			Namespace: policy.Namespace,
			Name:      policy.Name,
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: "NetworkPolicy", Name: policy.Name, UID: policy.UID,
			}},
		}}
		return stored, r.client.Create(ctx, stored)
	case err != nil:
		return nil, fmt.Errorf("reading PolicyEnforcement %s: %w", client.ObjectKeyFromObject(policy), err)
	case len(stored.OwnerReferences) == 1 && stored.OwnerReferences[0].UID == policy.UID:
		return stored, nil
	}
	return nil, client.IgnoreNotFound(r.client.Delete(ctx, stored, client.Preconditions{UID: &stored.UID}))
}

func (r *PolicyReconciler) report(ctx context.Context, stored *v1alpha1.PolicyEnforcement, status v1alpha1.PolicyEnforcementStatus) (reconcile.Result, error) {
	if equality.Semantic.DeepEqual(stored.Status, status) {
		return reconcile.Result{}, nil
	}
	key := client.ObjectKeyFromObject(stored)
	updated := stored.DeepCopy()
	updated.Status = status
	r.pace.Wrote(key, time.Now())
	err := r.client.Status().Patch(ctx, updated, client.MergeFromWithOptions(stored, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		r.pace.Forget(key)
		return reconcile.Result{RequeueAfter: staleRetry}, nil
	}
	if err == nil {
		r.patience.forget(key)
	}
	return reconcile.Result{}, err
}

// withdrawal deletes every PolicyEnforcement, once.
type withdrawal struct{ client client.Client }

// Start deletes them. What fails is tried again at the operator's next start.
func (w withdrawal) Start(ctx context.Context) error {
	var all v1alpha1.PolicyEnforcementList
	if err := w.client.List(ctx, &all); err != nil {
		return fmt.Errorf("listing PolicyEnforcements: %w", err)
	}
	for i := range all.Items {
		if err := client.IgnoreNotFound(w.client.Delete(ctx, &all.Items[i])); err != nil {
			return fmt.Errorf("deleting a PolicyEnforcement: %w", err)
		}
	}
	return nil
}
