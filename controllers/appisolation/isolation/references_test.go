package isolation_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/controllers/appisolation/isolation"
)

// TestChangedEntities: a change of the config recompiles its dependents only.
func TestChangedEntities(t *testing.T) {
	full := testWorld(t).Config
	for name, test := range map[string]struct {
		change func(*v1alpha1.IsolationConfigSpec)
		want   []v1alpha1.Entity
	}{
		"nothing": {func(*v1alpha1.IsolationConfigSpec) {}, nil},
		"DNS": {func(c *v1alpha1.IsolationConfigSpec) {
			c.DNS.Ports = []v1alpha1.Port{{Port: new(intstr.FromInt32(5353))}}
		}, []v1alpha1.Entity{"DNS"}},
		"clusterCIDRs": {func(c *v1alpha1.IsolationConfigSpec) { c.ClusterCIDRs = nil }, []v1alpha1.Entity{"Internet"}},
		"monitoring":   {func(c *v1alpha1.IsolationConfigSpec) { c.Monitoring = c.IngressControllers }, []v1alpha1.Entity{"Monitoring"}},
		"nodeCIDRs, of which ingress controllers are made": {
			func(c *v1alpha1.IsolationConfigSpec) { c.NodeCIDRs = []string{"10.0.0.0/8"} },
			[]v1alpha1.Entity{"Nodes", "IngressControllers"}},
	} {
		t.Run(name, func(t *testing.T) {
			changed := full.DeepCopy()
			test.change(changed)
			require.Equal(t, test.want, isolation.ChangedEntities(full, changed))
		})
	}
	require.Equal(t, isolation.ConfiguredEntities, isolation.ChangedEntities(nil, full))
	require.Equal(t, isolation.ConfiguredEntities, isolation.ChangedEntities(full, nil))
}
