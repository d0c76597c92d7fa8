package dataplane

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// reportBackWithin is how soon a Node that was registered again has its report back,
// once the garbage collector is done with the old one.
const reportBackWithin = 10 * time.Second

// A Node that is deleted and registered again has its report back within seconds. The
// API server of the test has no garbage collector, so that the test deletes the old
// Node's report, when it wants: before the new Node is there, or after the agent gave
// the report to the new Node.
func TestANodeThatIsRegisteredAgainHasItsReport(t *testing.T) {
	for name, collect := range map[string]func(s *agentScene, register func() *corev1.Node){
		"collected before": func(s *agentScene, register func() *corev1.Node) {
			require.NoError(s.t, s.admin.Delete(context.Background(), s.report()))
			register()
		},
		"collected late": func(s *agentScene, register func() *corev1.Node) {
			node := register()
			s.eventually(func() bool { return isOwnedBy(s.report(), node) }, "the new Node owns the report")
			require.NoError(s.t, s.admin.Delete(context.Background(), s.report()))
		},
		"not collected": func(s *agentScene, register func() *corev1.Node) { register() },
	} {
		t.Run(name, func(t *testing.T) {
			s := newAgentScene(t)
			s.start()
			s.eventually(func() bool { return isSynced(s.report()) }, "the agent reports")

			old := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.nodeName}}
			require.NoError(t, s.admin.Delete(t.Context(), old))
			again := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: s.nodeName}}
			collect(s, func() *corev1.Node {
				require.NoError(t, s.admin.Create(t.Context(), again))
				return again
			})
			require.Eventually(t, func() bool { return isSynced(s.report()) && isOwnedBy(s.report(), again) },
				reportBackWithin, 20*time.Millisecond, "the report is back")
			s.stop()
		})
	}
}

func isSynced(report *v1alpha1.NodeEnforcement) bool {
	return apimeta.IsStatusConditionTrue(report.Status.Conditions, v1alpha1.NodeConditionDataplaneSynced)
}

func isOwnedBy(report *v1alpha1.NodeEnforcement, node *corev1.Node) bool {
	return len(report.OwnerReferences) == 1 && report.OwnerReferences[0].UID == node.UID
}
