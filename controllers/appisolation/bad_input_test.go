package appisolation

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
	"github.com/moat-dev/moat/controllers/appisolation/isolation/isolationtest"
)

// TestThousandPeersAndALongName: twenty rules of fifty peers.
func TestThousandPeersAndALongName(t *testing.T) {
	f := newFixture(t)
	f.key.Name = strings.Repeat("x", 63)
	app := isolationtest.App(t, "isolation/testdata/walk-through.in.yaml")
	app.Namespace, app.Name = f.key.Namespace, f.key.Name
	app.Spec.Ingress = nil
	for i := range 20 {
		rule := v1alpha1.IngressRule{Name: fmt.Sprint("rule-", i)}
		for j := range 50 {
			cidr := fmt.Sprintf("10.%d.%d.0/24", i, j)
			rule.From = append(rule.From, v1alpha1.Peer{CIDR: &v1alpha1.CIDRPeer{CIDR: cidr}})
		}
		app.Spec.Ingress = append(app.Spec.Ingress, rule)
	}
	require.NoError(t, f.admin.Create(t.Context(), app))
	f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	require.Equal(t, isolation.NamePrefix+f.key.Name, f.app().Status.Policy.Name)
	count := 0
	for _, rule := range f.policy().Spec.Ingress {
		count += len(rule.From)
	}
	require.Equal(t, 1000, count)
}

// TestNamespaceThatIsBeingDeleted: nothing can be stored there any more, and the
// status says so.
func TestNamespaceThatIsBeingDeleted(t *testing.T) {
	f := newFixture(t)
	f.createApp()
	f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionTrue, v1alpha1.ReasonProgrammed)
	require.NoError(t, f.admin.Delete(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.key.Namespace}}))
	require.NoError(t, f.admin.Delete(t.Context(), &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.key.Namespace, Name: isolation.NamePrefix + f.key.Name},
	}))
	failed := f.condition(v1alpha1.ConditionProgrammed, metav1.ConditionFalse, v1alpha1.ReasonApplyFailed)
	require.Contains(t, failed.Message, "being terminated")
}
