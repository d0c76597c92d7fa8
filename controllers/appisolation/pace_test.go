package appisolation

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/pace"
	"github.com/moat-dev/moat/internal/apiservertest"
)

// TestABurstOfEditsIsFewStatuses edits an AppIsolation some fifty times: each edit
// is in the policy without delay, and the status is written every two seconds.
func TestABurstOfEditsIsFewStatuses(t *testing.T) {
	namespace := server.Namespace(t)
	startControllerOf(t, namespace, Options{})
	f := &fixture{t: t, admin: server.Admin(t), key: client.ObjectKey{Namespace: namespace, Name: "db"}}
	f.createApp()
	start, edits := time.Now(), int32(0)
	observed := map[int64]bool{}
	for time.Since(start) < 3*pace.Every {
		edits++
		f.edit(func(app *v1alpha1.AppIsolation) {
			app.Spec.Ingress = []v1alpha1.IngressRule{{
				Name: "open", From: []v1alpha1.Peer{{Entity: v1alpha1.EntityAnywhere}}, Ports: []v1alpha1.Port{{Port: new(intstr.FromInt32(edits))}},
			}}
		})
		f.eventually(func() bool {
			policy := f.policy()
			return policy != nil && len(policy.Spec.Ingress) == 1 && len(policy.Spec.Ingress[0].Ports) == 1 && policy.Spec.Ingress[0].Ports[0].Port.IntVal == edits
		}, "the policy follows at once")
		observed[f.app().Status.ObservedGeneration] = true
		time.Sleep(apiservertest.Tick)
	}
	writes := int(time.Since(start)/pace.Every) + 1
	delete(observed, 0)
	require.Greater(t, int(edits), 2*writes, "the test needs more edits than writes to mean anything")
	require.LessOrEqual(t, len(observed), writes)
	f.eventually(func() bool { app := f.app(); return app.Status.ObservedGeneration == app.Generation }, "and the last edit is reported")
}
