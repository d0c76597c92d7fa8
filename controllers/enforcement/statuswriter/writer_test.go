package statuswriter

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/enforcement/judge"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// desk is a Writer that writes an object once an hour, and one stored object.
type desk struct {
	t      *testing.T
	client client.Client
	writer *Writer
	judged int // rounds that were judged
	told   int // calls of Written
}

func newDesk(t *testing.T, conditions ...metav1.Condition) *desk {
	t.Helper()
	app := &v1alpha1.AppIsolation{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "db", Generation: 1}}
	app.Status.Conditions = conditions
	c := fake.NewClientBuilder().WithScheme(apiservertest.NewScheme()).WithObjects(app).WithStatusSubresource(app).Build()
	return &desk{t: t, client: c, writer: New(c, time.Hour)}
}

func (d *desk) app() *v1alpha1.AppIsolation {
	d.t.Helper()
	app := &v1alpha1.AppIsolation{}
	require.NoError(d.t, d.client.Get(d.t.Context(), client.ObjectKey{Namespace: "n", Name: "db"}, app))
	return app
}

// round reconciles the object as it was read, with a verdict about generation 1.
func (d *desk) round(app *v1alpha1.AppIsolation, verdict metav1.Condition) reconcile.Result {
	d.t.Helper()
	result, err := d.writer.Reconcile(d.t.Context(), Round{
		Key: client.ObjectKeyFromObject(app), Generation: 1, Conditions: app.Status.Conditions,
		Judge: func(context.Context) (Update, error) {
			d.judged++
			updated := app.DeepCopy()
			meta.SetStatusCondition(&updated.Status.Conditions, verdict)
			return Update{Verdict: judge.Verdict{Enforced: verdict}, Stored: app, Updated: updated}, nil
		},
		Written: func(Update) { d.told++ },
	})
	require.NoError(d.t, err)
	return result
}

// expect says what Enforced is in the API.
func (d *desk) expect(reason string) {
	d.t.Helper()
	condition := meta.FindStatusCondition(d.app().Status.Conditions, v1alpha1.ConditionEnforced)
	if reason == "" {
		require.Nil(d.t, condition)
		return
	}
	require.NotNil(d.t, condition)
	require.Equal(d.t, reason, condition.Reason)
}

func enforced(status metav1.ConditionStatus, reason string) metav1.Condition {
	return metav1.Condition{
		Type: v1alpha1.ConditionEnforced, Status: status, Reason: reason, ObservedGeneration: 1,
		LastTransitionTime: metav1.NewTime(time.Unix(1_700_000_000, 0)),
	}
}

var (
	yes         = enforced(metav1.ConditionTrue, v1alpha1.ReasonAllNodesEnforced)
	failed      = enforced(metav1.ConditionFalse, v1alpha1.ReasonNodeFailed)
	progressing = enforced(metav1.ConditionFalse, v1alpha1.ReasonProgressing)
)

func TestAStatusThatIsDueIsWritten(t *testing.T) {
	d := newDesk(t)
	require.Zero(t, d.round(d.app(), yes))
	d.expect(v1alpha1.ReasonAllNodesEnforced)
	require.Equal(t, 1, d.told)
}

func TestAStatusThatSaysTheSameIsNotWritten(t *testing.T) {
	d := newDesk(t, yes)
	before := d.app().ResourceVersion
	require.Zero(t, d.round(d.app(), yes))
	require.Equal(t, before, d.app().ResourceVersion)
	require.Zero(t, d.told)
}

// Within the pace only one finding is written: that what was True isn't any more.
func TestThePaceKeepsBackAllButAFall(t *testing.T) {
	for name, test := range map[string]struct {
		stored, verdict metav1.Condition
		judged          int
		want            string
	}{
		"Enforced was False, and is True":  {failed, yes, 0, v1alpha1.ReasonNodeFailed},
		"Enforced was False, and still is": {failed, progressing, 0, v1alpha1.ReasonNodeFailed},
		"Enforced was True, and still is":  {yes, enforced(metav1.ConditionTrue, v1alpha1.ReasonNoSelectedPods), 1, v1alpha1.ReasonAllNodesEnforced},
		"Enforced was True, and fails":     {yes, failed, 1, v1alpha1.ReasonNodeFailed},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t, test.stored)
			d.writer.pace.Wrote(client.ObjectKeyFromObject(d.app()), time.Now())
			result := d.round(d.app(), test.verdict)
			require.Equal(t, test.judged, d.judged)
			d.expect(test.want)
			if test.want == test.verdict.Reason {
				require.Zero(t, result)
				return
			}
			require.InDelta(t, time.Hour, result.RequeueAfter, float64(time.Minute))
		})
	}
}

// A generation that is on its way isn't called progressing in its first second. What has gone
// wrong is said at once.
func TestANewGenerationHasTime(t *testing.T) {
	d := newDesk(t)
	result := d.round(d.app(), progressing)
	require.Positive(t, result.RequeueAfter)
	require.LessOrEqual(t, result.RequeueAfter, Patience)
	d.expect("")
	require.Zero(t, d.round(d.app(), failed))
	d.expect(v1alpha1.ReasonNodeFailed)

	d = newDesk(t)
	require.Positive(t, d.round(d.app(), progressing).RequeueAfter)
	time.Sleep(Patience)
	require.Zero(t, d.round(d.app(), progressing))
	d.expect(v1alpha1.ReasonProgressing)
}

// A write that lost a race overwrites nothing, and doesn't count for the pace.
func TestALostRaceIsTriedAgain(t *testing.T) {
	d := newDesk(t)
	stale := d.app()
	newer := d.app()
	newer.Status.SelectedPods = 7
	require.NoError(t, d.client.Status().Update(t.Context(), newer))
	require.Equal(t, reconcile.Result{RequeueAfter: StaleRetry}, d.round(stale, yes))
	d.expect("")
	require.Zero(t, d.told)
	require.Zero(t, d.round(d.app(), yes))
	d.expect(v1alpha1.ReasonAllNodesEnforced)
	require.EqualValues(t, 7, d.app().Status.SelectedPods)
}

func TestAnObjectThatIsGoneIsForgotten(t *testing.T) {
	d := newDesk(t)
	require.Zero(t, d.round(d.app(), yes))
	key := client.ObjectKeyFromObject(d.app())
	d.writer.Forget(key)
	require.Zero(t, d.writer.pace.Wait(key, time.Now()))
}

func TestWhatCannotBeJudgedIsAnError(t *testing.T) {
	d := newDesk(t)
	broken := errors.New("no cache")
	_, err := d.writer.Reconcile(t.Context(), Round{Judge: func(context.Context) (Update, error) { return Update{}, broken }})
	require.ErrorIs(t, err, broken)
	d.expect("")
}
