package statuswriter

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
	"github.com/moat-dev/moat/controllers/pace"
)

// StaleRetry is how long to wait for the cache after a write that lost a race.
const StaleRetry = 100 * time.Millisecond

// Writer writes the statuses of the objects of one kind. It is safe for concurrent use.
type Writer struct {
	client   client.Client
	pace     *pace.Pace
	patience *patience
}

// New returns a Writer with a pace of its own. every is the least time between two writes of
// one status; zero means pace.Every.
func New(c client.Client, every time.Duration) *Writer {
	return &Writer{client: c, pace: pace.New(every), patience: newPatience()}
}

// Round is one reconciliation of one object.
type Round struct {
	Key types.NamespacedName
	// Generation is the generation that Enforced has to speak of.
	Generation int64
	// Conditions are those that the stored status has about that object; nil: none.
	Conditions []metav1.Condition
	// Judge reads what bears on the object, and says what its status has to say. It isn't
	// called where nothing that it could find may be written yet.
	Judge func(context.Context) (Update, error)
	// Written is called after the status was written. It may be nil.
	Written func(Update)
}

// Update is what a status has to say.
type Update struct {
	Verdict judge.Verdict
	// Stored is the object as it was read, and Updated is a copy with the new status. They
	// may be equal.
	Stored, Updated client.Object
}

// Reconcile judges the object, and patches its status where that changes and the time for it
// has come. The status is patched only if it is still the one that was read. The result says
// when to try again. Errors are those of Judge and of the API server.
func (w *Writer) Reconcile(ctx context.Context, round Round) (reconcile.Result, error) {
	wait := w.pace.Wait(round.Key, time.Now())
	if wait > 0 && !isEnforced(round.Conditions, round.Generation) {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	update, err := round.Judge(ctx)
	if err != nil {
		return reconcile.Result{}, err
	}
	if wait > 0 && !update.Verdict.Falls() {
		return reconcile.Result{RequeueAfter: wait}, nil
	}
	if equality.Semantic.DeepEqual(update.Stored, update.Updated) {
		return reconcile.Result{}, nil
	}
	if update.Verdict.Progressing() && !speaksOf(round.Conditions, round.Generation) {
		if wait := w.patience.wait(round.Key, round.Generation, time.Now()); wait > 0 {
			return reconcile.Result{RequeueAfter: wait}, nil
		}
	}
	return w.write(ctx, round, update)
}

func (w *Writer) write(ctx context.Context, round Round, update Update) (reconcile.Result, error) {
	w.pace.Wrote(round.Key, time.Now())
	err := w.client.Status().Patch(ctx, update.Updated, client.MergeFromWithOptions(update.Stored, client.MergeFromWithOptimisticLock{}))
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		w.pace.Forget(round.Key)
		return reconcile.Result{RequeueAfter: StaleRetry}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	w.patience.forget(round.Key)
	if round.Written != nil {
		round.Written(update)
	}
	return reconcile.Result{}, nil
}

// Forget is for an object that is gone.
func (w *Writer) Forget(key types.NamespacedName) {
	w.pace.Forget(key)
	w.patience.forget(key)
}

// isEnforced says whether Enforced is True, and of that generation.
func isEnforced(conditions []metav1.Condition, generation int64) bool {
	return speaksOf(conditions, generation) && meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionEnforced)
}

// speaksOf says whether Enforced was written for a generation.
func speaksOf(conditions []metav1.Condition, generation int64) bool {
	enforced := meta.FindStatusCondition(conditions, v1alpha1.ConditionEnforced)
	return enforced != nil && enforced.ObservedGeneration == generation
}
