package appstatus

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
	"github.com/moat-dev/moat/controllers/enforcement/statuswriter"
	"github.com/moat-dev/moat/controllers/enforcement/survey"
	"github.com/moat-dev/moat/controllers/enforcement/triggers"
)

// get, list, watch: the informers. The status is written by patch.
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=appisolations,verbs=get;list;watch
// +kubebuilder:rbac:groups=isolation.moat.dev,resources=appisolations/status,verbs=patch
//
// create, patch: the events of AppIsolations; a repeated one is patched.
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Options of the controller.
type Options struct {
	// AgentNamespace is where the agents' pods run.
	AgentNamespace string
	// ReportingOff makes Enforced Unknown, whatever the nodes report.
	ReportingOff bool
	// WriteEvery is the least time between two writes of one status; zero: pace.Every.
	WriteEvery time.Duration
}

// Reconciler keeps selectedPods, enforcement, failures, Enforced, Exclusive,
// Overlapping and Ready in the status of each AppIsolation.
type Reconciler struct {
	client       client.Client
	survey       survey.Survey
	reportingOff bool
	statuses     *statuswriter.Writer
	events       events.EventRecorder
}

// Setup adds the controller to the manager, whose cache the package survey has prepared.
func Setup(mgr manager.Manager, options Options) error {
	c := mgr.GetClient()
	changes := triggers.Triggers{Reader: c, AgentNamespace: options.AgentNamespace, Targets: targets{reader: c}}
	err := changes.Controller(mgr, "enforcement", &v1alpha1.AppIsolation{}).
		Watches(&networkingv1.NetworkPolicy{}, changes.PolicyHandler()).
		Complete(&Reconciler{
			client:       c,
			survey:       survey.New(c, options.AgentNamespace),
			reportingOff: options.ReportingOff,
			statuses:     statuswriter.New(c, options.WriteEvery),
			events:       mgr.GetEventRecorder("moat-operator"),
		})
	if err != nil {
		return fmt.Errorf("setting up the enforcement controller: %w", err)
	}
	return nil
}

// Reconcile fetches one AppIsolation. Its status is judged and written when it is due.
//
// It stays silent until Programmed speaks of the spec's present generation: the
// Enforced condition that is there carries an older observedGeneration, which
// `kubectl wait` doesn't accept, and the write of Programmed brings it back here.
func (r *Reconciler) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	app := &v1alpha1.AppIsolation{}
	if err := r.client.Get(ctx, request.NamespacedName, app); err != nil {
		r.statuses.Forget(request.NamespacedName)
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	programmed := programmedNow(app)
	if app.DeletionTimestamp != nil || programmed == nil {
		return reconcile.Result{}, nil
	}
	return r.statuses.Reconcile(ctx, statuswriter.Round{
		Key:        request.NamespacedName,
		Generation: app.Generation,
		Conditions: app.Status.Conditions,
		Judge: func(ctx context.Context) (statuswriter.Update, error) {
			return r.judge(ctx, app, *programmed)
		},
		Written: r.tell,
	})
}

// judge says where the policy is enforced, and which others select its pods. See the note on
// writers in controllers/appisolation for what of the status is written here.
func (r *Reconciler) judge(ctx context.Context, app *v1alpha1.AppIsolation, programmed metav1.Condition) (statuswriter.Update, error) {
	subjects, err := r.survey.Subjects(ctx, app.Namespace, judge.SelectorOf(app.Spec.Selector.ToMeta()))
	if err != nil {
		return statuswriter.Update{}, err
	}
	verdict, others := notProgrammed(programmed), judge.WithoutPolicy()
	if programmed.Status == metav1.ConditionTrue && app.Status.Policy != nil {
		if verdict, others, err = r.judgePolicy(ctx, app.Namespace, *app.Status.Policy, subjects); err != nil {
			return statuswriter.Update{}, err
		}
	}
	updated := app.DeepCopy()
	fill(&updated.Status, app.Generation, len(subjects), verdict, others)
	return statuswriter.Update{Verdict: verdict, Stored: app, Updated: updated}, nil
}

// judgePolicy is for a policy that is stored. others are the conditions about other policies.
// They stay as they are where the cache doesn't have the policy yet: its event brings the
// AppIsolation back here.
func (r *Reconciler) judgePolicy(ctx context.Context, namespace string, policy v1alpha1.PolicyReference, subjects []*corev1.Pod) (verdict judge.Verdict, others []metav1.Condition, err error) {
	verdict = judge.NotReported()
	if !r.reportingOff {
		nodes, err := r.survey.Nodes(ctx, subjects)
		if err != nil {
			return judge.Verdict{}, nil, err
		}
		verdict = judge.Policy(policy, nodes)
	}
	n, found, err := r.survey.Neighbours(ctx, namespace, policy.UID, subjects)
	if err == nil && found {
		others = n.Conditions()
	}
	return verdict, others, err
}

// tell records an event where Ready says something else than before. Progress is
// none: each pod that is scheduled to another node makes some. A repeated event is
// one Event with a count.
func (r *Reconciler) tell(update statuswriter.Update) {
	before, app := update.Stored.(*v1alpha1.AppIsolation), update.Updated.(*v1alpha1.AppIsolation)
	was := meta.FindStatusCondition(before.Status.Conditions, v1alpha1.ConditionReady)
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
