package policy_test

import (
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/moat-dev/moat/dataplane/budget/budgettest"
	"github.com/moat-dev/moat/dataplane/policy"
)

// The size of a policy is about what it takes: a bound that is made of it holds.
func TestSizeIsAboutWhatAPolicyTakes(t *testing.T) {
	for name, spec := range map[string]networkingv1.NetworkPolicySpec{
		"blocks":     budgettest.ManyCIDRs(10_000),
		"exceptions": budgettest.Exceptions(10_000),
		"selectors":  budgettest.Everything(2_000),
		"ports":      budgettest.Peers(10, 30_000),
		"names":      budgettest.NamesOfPorts(180),
	} {
		t.Run(name, func(t *testing.T) {
			const copies = 10
			np := budgettest.Named("default", "large", 0, spec)
			var parsed [copies]*policy.Policy
			before := heapBytes()
			for i := range parsed {
				parsed[i] = policy.ParseNetworkPolicy(np)
			}
			took := float64(heapBytes()-before) / copies
			size := float64(parsed[0].Size)
			t.Logf("takes %.0f bytes, size %.0f", took, size)
			require.InEpsilon(t, took, size, 0.35)
			small := parsed[0].WithoutRules()
			require.True(t, small.Omitted)
			require.Empty(t, small.Rules[policy.Ingress])
			require.Empty(t, small.Rules[policy.Egress])
			require.Equal(t, parsed[0].Isolates, small.Isolates)
			runtime.KeepAlive(np)
			runtime.KeepAlive(parsed)
		})
	}
}
