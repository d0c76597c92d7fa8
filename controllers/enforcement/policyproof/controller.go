package policyproof

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
	"github.com/moat-dev/moat/controllers/enforcement/statuswriter"
	"github.com/moat-dev/moat/controllers/enforcement/survey"
	"github.com/moat-dev/moat/controllers/enforcement/triggers"
)

// get, list, watch: the informer. create: one for each hand-written policy.
// delete: those that speak of no policy any more. The status is written by patch.
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=policyenforcements,verbs=get;list;watch;create;delete
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=policyenforcements/status,verbs=patch

// Options of the controller.
type Options struct {
	// AgentNamespace is where the agents' pods run.
	AgentNamespace string
	// WriteEvery is the least time between two writes of one status; zero: pace.Every.
	WriteEvery time.Duration
}

// Reconciler keeps the PolicyEnforcement of each hand-written policy. It never writes the
// policy itself.
type Reconciler struct {
	client   client.Client
	survey   survey.Survey
	statuses *statuswriter.Writer
}

// Setup adds the controller to the manager, whose cache the package survey has prepared.
func Setup(mgr manager.Manager, options Options) error {
	c := mgr.GetClient()
	changes := triggers.Triggers{Reader: c, AgentNamespace: options.AgentNamespace, Targets: targets{reader: c}}
	err := changes.Controller(mgr, "policyenforcement", &networkingv1.NetworkPolicy{}).
		Watches(&v1alpha1.PolicyEnforcement{}, handler.EnqueueRequestsFromMapFunc(samePolicy)).
		Complete(&Reconciler{
			client:   c,
			survey:   survey.New(c, options.AgentNamespace),
			statuses: statuswriter.New(c, options.WriteEvery),
		})
	if err != nil {
		return fmt.Errorf("setting up the policyenforcement controller: %w", err)
	}
	return nil
}

func samePolicy(_ context.Context, object client.Object) []reconcile.Request {
	return []reconcile.Request{triggers.RequestFor(object)}
}

// Reconcile fetches one policy and its PolicyEnforcement, whose status is judged and written
// when it is due. The garbage collection of Kubernetes deletes the PolicyEnforcement of a
// policy that is gone.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	policy := &networkingv1.NetworkPolicy{}
	if err := r.client.Get(ctx, request.NamespacedName, policy); err != nil {
		r.statuses.Forget(request.NamespacedName)
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
		return reconcile.Result{RequeueAfter: statuswriter.StaleRetry}, nil
	}
	if err != nil || stored == nil {
		return reconcile.Result{}, err
	}
	return r.statuses.Reconcile(ctx, statuswriter.Round{
		Key:        request.NamespacedName,
		Generation: policy.Generation,
		Conditions: conditionsAbout(policy, stored),
		Judge: func(ctx context.Context) (statuswriter.Update, error) {
			return r.judge(ctx, policy, stored)
		},
	})
}

// judge says where the policy is enforced.
func (r *Reconciler) judge(ctx context.Context, policy *networkingv1.NetworkPolicy, stored *v1alpha1.PolicyEnforcement) (statuswriter.Update, error) {
	subjects, err := r.survey.Subjects(ctx, policy.Namespace, judge.SelectorOf(&policy.Spec.PodSelector))
	if err != nil {
		return statuswriter.Update{}, err
	}
	reference := v1alpha1.PolicyReference{Name: policy.Name, UID: policy.UID, Generation: policy.Generation}
	nodes, err := r.survey.Nodes(ctx, subjects)
	if err != nil {
		return statuswriter.Update{}, err
	}
	verdict := judge.Policy(reference, nodes)
	updated := stored.DeepCopy()
	updated.Status = statusOf(verdict, reference, len(subjects), stored.Status)
	return statuswriter.Update{Verdict: verdict, Stored: stored, Updated: updated}, nil
}

// ensure returns the policy's PolicyEnforcement. It returns nil after it deleted
// one that belongs to an earlier policy of the name: the event of its end comes back.
func (r *Reconciler) ensure(ctx context.Context, policy *networkingv1.NetworkPolicy) (*v1alpha1.PolicyEnforcement, error) {
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
