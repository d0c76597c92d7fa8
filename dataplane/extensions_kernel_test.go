package dataplane

import (
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	apimeta "k8s.io/apimachinery/pkg/api/meta"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/iptables"
)

// A match that is missing makes no restore fail. The rules do without it and the node says
// so, until it is there.
func TestRulesDoWithoutAMissingMatch(t *testing.T) {
	for _, backend := range []iptables.Backend{iptables.NFT, iptables.Legacy} {
		t.Run(string(backend), func(t *testing.T) {
			s := closedScene(t, backend)
			metric := func() float64 {
				s.enforcer.metrics.show(s.enforcer, 0)
				var m dto.Metric
				require.NoError(t, s.enforcer.metrics.missing.WithLabelValues("IPv6").Write(&m))
				return m.GetGauge().GetValue()
			}
			t.Run("missing", func(t *testing.T) {
				withoutExtension(t, "hl")
				s.sync()
				require.Equal(t, "IPv6: [hl]", s.enforcer.extensions.String())
				require.EqualValues(t, 1, metric())
				require.NotContains(t, s.mangle6(), "-m hl")
				require.Contains(t, s.mangle6(), "--icmpv6-type 135 -m length --length 0:128 -j RETURN")
				s.requireTCP(false, "open", "b", 80)
				r := newTestReporter()
				r.found(s.enforcer.surroundings())
				synced := apimeta.FindStatusCondition(observed(r, s.enforcer.view, nil).Conditions, v1alpha1.NodeConditionDataplaneSynced)
				require.Contains(t, synced.Message, "IPv6: [hl]")
				s.comeToRest()
			})
			s.enforcer.distrust()
			s.sync()
			require.Empty(t, s.enforcer.extensions.String())
			require.Zero(t, metric())
			require.Contains(t, s.mangle6(), "--icmpv6-type 135 -m hl --hl-eq 255 -m length --length 0:128 -j RETURN")
			require.NotContains(t, s.dump()+s.mangle6(), "PROBE")
		})
	}
}

// mangle6 is what ip6tables-save says of the mangle table.
func (s *scene) mangle6() string {
	program := strings.Replace(string(s.enforcer.backend), "iptables", "ip6tables", 1)
	return s.run(program+"-save", "-t", "mangle")
}
