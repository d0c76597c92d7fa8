package absence

import (
	"context"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/agents"
)

const (
	// deploymentName is what config and the chart call the operator's Deployment.
	deploymentName = "moat-operator"

	// switchedOff is the reason where no removal is seen, and none is looked for.
	switchedOff = "the operator doesn't taint nodes any more"

	// lastWithin bounds the last check of an operator that stops. It is shorter than
	// the time that cmd/moat gives a manager to stop.
	lastWithin = 3 * time.Second
)

// removalReason says by which object one sees that Moat is being removed; "": by none.
// Any of them is enough: Helm deletes the Deployment first, kubectl and Argo CD have
// orders of their own, and the end of a namespace has none.
//
// It is about the present, so one that comes back ends the removal: the leader then
// taints again where it has to.
func removalReason(ctx context.Context, reader client.Reader, namespace string) (string, error) {
	deployment := &appsv1.Deployment{}
	for _, sign := range []struct {
		object client.Object
		key    client.ObjectKey
		kind   string
	}{
		{&corev1.Namespace{}, client.ObjectKey{Name: namespace}, "Namespace"},
		{&corev1.ConfigMap{}, client.ObjectKey{Namespace: namespace, Name: v1alpha1.ReleaseMarker}, "ConfigMap"},
		{deployment, client.ObjectKey{Namespace: namespace, Name: deploymentName}, "Deployment"},
		{&appsv1.DaemonSet{}, client.ObjectKey{Namespace: namespace, Name: agents.DaemonSetName}, "DaemonSet"},
	} {
		err := reader.Get(ctx, sign.key, sign.object)
		switch {
		case apierrors.IsNotFound(err):
			return fmt.Sprintf("%s %s is gone", sign.kind, sign.key.Name), nil
		case err != nil:
			return "", fmt.Errorf("reading %s %s: %w", sign.kind, sign.key, err)
		case sign.object.GetDeletionTimestamp() != nil:
			return fmt.Sprintf("%s %s is being deleted", sign.kind, sign.key.Name), nil
		}
	}
	if deployment.Spec.Replicas != nil && *deployment.Spec.Replicas == 0 {
		return "Deployment " + deploymentName + " is scaled to nothing", nil
	}
	return "", nil
}

// watchRelease watches the objects of removalReason, but for the agents' DaemonSet,
// which every controller of this package watches.
func watchRelease(b *builder.Builder) *builder.Builder {
	return b.
		Watches(&corev1.Namespace{}, always).
		Watches(&corev1.ConfigMap{}, always).
		Watches(&appsv1.Deployment{}, always)
}

// remover takes the taint from all nodes while Moat is being removed. One is at work
// in each operator, whether it leads or not: the leader may be the first to end.
type remover struct {
	client  client.Client
	live    client.Reader
	options Options
	taints  *taints
}

func setupRemoval(mgr manager.Manager, options Options, t *taints) error {
	r := &remover{client: mgr.GetClient(), live: mgr.GetAPIReader(), options: options, taints: t}
	b := builder.ControllerManagedBy(mgr).
		Named("absence-removal").
		WithOptions(controller.Options{NeedLeaderElection: new(false)}).
		Watches(&corev1.Node{}, always, builder.WithPredicates(tainted()))
	if options.Mode == Taint {
		b = watchRelease(b).Watches(&appsv1.DaemonSet{}, always)
	}
	if err := b.Complete(r); err != nil {
		return fmt.Errorf("setting up the removal of taints: %w", err)
	}
	if err := mgr.Add(atTheEnd{r}); err != nil {
		return fmt.Errorf("setting up the removal of taints: %w", err)
	}
	return nil
}

// Reconcile is called at once for each event, also for a node that a leader tainted
// in the last moment.
func (r *remover) Reconcile(ctx context.Context, _ reconcile.Request) (reconcile.Result, error) {
	reason := switchedOff
	if r.options.Mode == Taint {
		var err error
		if reason, err = removalReason(ctx, r.client, r.options.Namespace); err != nil {
			return reconcile.Result{}, err
		}
	}
	if reason == "" {
		return reconcile.Result{}, nil
	}
	return reconcile.Result{}, r.takeAll(ctx, r.client, reason)
}

func (r *remover) takeAll(ctx context.Context, reader client.Reader, reason string) error {
	var list corev1.NodeList
	if err := reader.List(ctx, &list); err != nil {
		return fmt.Errorf("listing Nodes: %w", err)
	}
	var names []string
	for i := range list.Items {
		if isTainted(&list.Items[i]) {
			names = append(names, list.Items[i].Name)
		}
	}
	return r.taints.takeAll(ctx, names, reason)
}

// atTheEnd checks again when the operator is told to stop. It asks the API server and not the
// cache: an event may be on its way.
type atTheEnd struct{ *remover }

// NeedLeaderElection is false: each operator that ends may be the last one.
func (atTheEnd) NeedLeaderElection() bool { return false }

// Start waits for the end of the context, and ends soon after.
func (e atTheEnd) Start(ctx context.Context) error {
	<-ctx.Done()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWithin)
	defer cancel()
	if e.options.Mode != Taint {
		return nil
	}
	reason, err := removalReason(ctx, e.live, e.options.Namespace)
	if err == nil && reason != "" {
		err = e.takeAll(ctx, e.live, reason)
	}
	if err != nil {
		log.FromContext(ctx).Info("Whether a node still has the taint of absent agents isn't known", "taint", taint.Key, "error", err.Error())
	}
	return nil
}
