package lookout

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/moat-dev/moat/dataplane/departure"
	"github.com/moat-dev/moat/internal/apiservertest"
)

const namespace = "moat-system"

// scene is a cluster with an install of Moat, whose API server may answer nothing, or
// refuse to say anything of one kind.
type scene struct {
	t       *testing.T
	client  client.WithWatch
	lookout *Lookout
	refuses func(client.Object) error
}

func meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Finalizers: []string{"test/stays"}}
}

func newScene(t *testing.T) *scene {
	t.Helper()
	s := &scene{t: t, refuses: func(client.Object) error { return nil }}
	s.client = fake.NewClientBuilder().WithScheme(apiservertest.NewScheme()).
		WithIndex(&corev1.ConfigMap{}, "metadata.name", func(o client.Object) []string { return []string{o.GetName()} }).
		WithObjects(
			&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Finalizers: []string{"test/stays"}}},
			&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{"moat": "yes"}}},
			&corev1.Pod{ObjectMeta: meta("moat-agent-x")}, daemonSet(), markerObject(),
		).
		WithInterceptorFuncs(interceptor.Funcs{
			Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
				if err := s.refuses(o); err != nil {
					return err
				}
				return c.Get(ctx, key, o, options...)
			},
		}).Build()
	s.lookout = New(s.client, Self{Namespace: namespace, Pod: "moat-agent-x", Node: "node-1"}, logr.Discard())
	return s
}

func daemonSet() *appsv1.DaemonSet {
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: daemonSetName}}
	ds.Spec.Template.Spec.NodeSelector = map[string]string{"moat": "yes"}
	return ds
}

func markerObject() *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: markerName}}
}

func (s *scene) create(object client.Object) {
	s.t.Helper()
	require.NoError(s.t, s.client.Create(s.t.Context(), object))
}

func (s *scene) delete(object client.Object) {
	s.t.Helper()
	require.NoError(s.t, s.client.Delete(s.t.Context(), object))
}

// end deletes the agent's pod, as all that removes an agent does.
func (s *scene) end() { s.delete(&corev1.Pod{ObjectMeta: meta("moat-agent-x")}) }

func kind[O client.Object](err error) func(client.Object) error {
	return func(o client.Object) error {
		if _, ok := o.(O); ok {
			return err
		}
		return nil
	}
}

// Each row is what happens to the cluster at some seconds after the agent was told to
// end, and after what time the verdict is there.
func TestDecide(t *testing.T) {
	forbidden := apierrors.NewForbidden(schema.GroupResource{Resource: "daemonsets"}, daemonSetName, errors.New("RBAC"))
	away := errors.New("connection refused")
	for name, test := range map[string]struct {
		before func(*scene)                   // the signal
		later  map[time.Duration]func(*scene) // after it
		want   departure.Verdict
		after  time.Duration
	}{
		"restart in place": {before: func(*scene) {}, want: departure.Leave},
		"update":           {before: (*scene).end, want: departure.Leave},
		"namespace deleted": {before: func(s *scene) {
			s.delete(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
			s.end()
		}, want: departure.Clean},
		"label removed": {before: func(s *scene) {
			require.NoError(s.t, s.client.Update(s.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}))
			s.end()
		}, want: departure.Clean},
		"DaemonSet replaced": {before: func(s *scene) { s.delete(daemonSet()); s.end(); s.create(daemonSet()) }, want: departure.Leave},
		"DaemonSet deleted alone": {before: func(s *scene) { s.delete(daemonSet()); s.end() },
			want: departure.Leave, after: departure.MarkerPatience},
		"DaemonSet deleted and back before the marker's time is over": {
			before: func(s *scene) { s.delete(daemonSet()); s.end() },
			later:  map[time.Duration]func(*scene){5 * time.Second: func(s *scene) { s.create(daemonSet()) }},
			want:   departure.Leave, after: departure.MarkerPatience},
		"marker deleted before": {before: func(s *scene) { s.delete(markerObject()); synctest.Wait(); s.delete(daemonSet()); s.end() },
			want: departure.Clean, after: departure.MarkerAway},
		"marker deleted long before": {before: func(s *scene) {
			s.delete(markerObject())
			time.Sleep(departure.MarkerAway)
			s.delete(daemonSet())
			s.end()
		}, want: departure.Clean},
		"marker deleted after": {before: func(s *scene) { s.delete(daemonSet()); s.end() },
			later: map[time.Duration]func(*scene){3 * time.Second: func(s *scene) { s.delete(markerObject()) }},
			want:  departure.Clean, after: 3*time.Second + departure.MarkerAway},
		"all deleted and made again": {before: func(s *scene) { s.delete(markerObject()); s.delete(daemonSet()); s.end() },
			later: map[time.Duration]func(*scene){4 * time.Second: func(s *scene) { s.create(daemonSet()); s.create(markerObject()) }},
			want:  departure.Leave, after: 4 * time.Second},
		"the DaemonSet alone is made again": {before: func(s *scene) { s.delete(markerObject()); s.delete(daemonSet()); s.end() },
			later: map[time.Duration]func(*scene){4 * time.Second: func(s *scene) { s.create(daemonSet()) }},
			want:  departure.Leave, after: departure.MarkerAway},
		"marker and rights taken away": {before: func(s *scene) {
			s.delete(markerObject())
			s.end()
			s.refuses = func(client.Object) error { return forbidden }
		}, want: departure.Clean, after: departure.MarkerAway},
		"rights taken away alone": {before: func(s *scene) { s.end(); s.refuses = func(client.Object) error { return forbidden } },
			want: departure.Leave, after: departure.MarkerPatience},
		"rights taken away one by one": {before: func(s *scene) {
			s.delete(markerObject())
			s.end()
			s.refuses = kind[*appsv1.DaemonSet](forbidden)
		},
			later: map[time.Duration]func(*scene){time.Second: func(s *scene) { s.refuses = func(client.Object) error { return forbidden } }},
			want:  departure.Clean, after: departure.MarkerAway},
		"step back to an older chart": {before: func(s *scene) {
			s.delete(markerObject())
			s.end()
			s.refuses = kind[*appsv1.DaemonSet](forbidden)
		}, want: departure.Leave, after: departure.MarkerPatience},
		"API server away": {before: func(s *scene) { s.end(); s.refuses = func(client.Object) error { return away } },
			want: departure.Leave, after: departure.ServerPatience},
		"API server away for a moment": {before: func(s *scene) {
			require.NoError(s.t, s.client.Update(s.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}}))
			s.end()
			s.refuses = func(client.Object) error { return away }
		},
			later: map[time.Duration]func(*scene){time.Second: func(s *scene) { s.refuses = func(client.Object) error { return nil } }},
			want:  departure.Clean, after: departure.ServerPause},
		"Node unreadable for long": {before: func(s *scene) { s.end(); s.refuses = kind[*corev1.Node](away) },
			want: departure.Leave, after: departure.ServerPatience},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go s.lookout.Watch(ctx)
				synctest.Wait()
				require.Equal(t, departure.Marker{Seen: true}, s.lookout.marker.seen(time.Now()))

				test.before(s)
				synctest.Wait()
				start := time.Now()
				for after, do := range test.later {
					time.AfterFunc(after, func() { do(s) })
				}
				decision := s.lookout.Decide(ctx, func() bool { return false })
				require.Equal(t, test.want, decision.Verdict, decision.Reason)
				require.Equal(t, test.after, time.Since(start), decision.Reason)
			})
		})
	}
}

// What the watch of namespaces has seen needs no answer of the API server.
func TestDecideByTheWatchOfNamespaces(t *testing.T) {
	s := newScene(t)
	s.refuses = func(client.Object) error { return errors.New("connection refused") }
	require.Equal(t, departure.Clean, s.lookout.Decide(t.Context(), func() bool { return true }).Verdict)
}

// A decision that is cut short leaves the rules.
func TestACancelledDecisionLeavesTheRules(t *testing.T) {
	s := newScene(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.refuses = func(client.Object) error { return ctx.Err() }
	require.Equal(t, departure.Leave, s.lookout.Decide(ctx, func() bool { return false }).Verdict)
}
