package v1alpha1_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"sigs.k8s.io/controller-runtime/pkg/client"

	ac "github.com/moat-dev/moat/apis/applyconfiguration/apis/v1alpha1"
	"github.com/moat-dev/moat/apis/v1alpha1"
)

// TestRulesOfTwoManagersMerge: rules are a map by name, so that two tools can each
// keep their own rule of one AppIsolation by server-side apply.
func TestRulesOfTwoManagersMerge(t *testing.T) {
	admin, namespace := server.Admin(t), server.Namespace(t)
	apply := func(manager client.FieldOwner, rules ...*ac.IngressRuleApplyConfiguration) {
		spec := ac.AppIsolationSpec().WithSelector(ac.LabelSelector()).WithDirections(v1alpha1.DirectionIngress).WithIngress(rules...)
		require.NoError(t, admin.Apply(t.Context(), ac.AppIsolation("app", namespace).WithSpec(spec), manager))
	}
	rule := func(name string, entity v1alpha1.Entity) *ac.IngressRuleApplyConfiguration {
		return ac.IngressRule().WithName(name).WithFrom(ac.Peer().WithEntity(entity))
	}
	names := func() (names []string) {
		app := &v1alpha1.AppIsolation{}
		require.NoError(t, admin.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "app"}, app))
		for _, rule := range app.Spec.Ingress {
			names = append(names, rule.Name)
		}
		return names
	}
	apply("team", rule("team", v1alpha1.EntitySameNamespace))
	apply("platform", rule("platform", v1alpha1.EntityAllNamespaces))
	require.ElementsMatch(t, []string{"team", "platform"}, names())
	apply("team")
	require.Equal(t, []string{"platform"}, names(), "each takes away its own alone")
}
