package dataplane

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/apis/v1alpha1"
	"github.com/moat-dev/moat/dataplane/budget/budgettest"
	"github.com/moat-dev/moat/dataplane/kernel/iptables"
	"github.com/moat-dev/moat/dataplane/pacing"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/report"
	"github.com/moat-dev/moat/dataplane/report/reporttest"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// hostile are policies that would each stop an agent that builds them.
var hostile = map[string]networkingv1.NetworkPolicySpec{
	"10,000 exceptions":                    budgettest.Exceptions(10_000),
	"180 selectors with 180 names":         budgettest.NamesOfPorts(180),
	"2,500 selectors of everything":        budgettest.Everything(2_500),
	"400 peers with 2,000 groups of ports": budgettest.Peers(400, 30_000),
}

// A policy that is too expensive closes the pods that it isolates, and nothing else: in
// the same pass another namespace's policy comes into force.
func TestAnExpensivePolicyClosesItsOwnPods(t *testing.T) {
	backends(t, func(t *testing.T, backend iptables.Backend) {
		s := walkThroughScene(t, backend)
		s.pod("ours", "tenant", nil, "10.244.1.12", "fd00:10:244:1::12")
		s.crowd(nil, 0, 500)
		s.sync()
		for name, spec := range hostile {
			spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": "neighbour"}}
			s.label("neighbour", map[string]string{"app": "neighbour"})
			s.model.SetPolicy(policy.ParseNetworkPolicy(budgettest.Named("default", "expensive", 1, spec)))
			s.apply("metadata: {name: innocent, namespace: ours}\nspec: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}]}")
			restores := s.restores()
			s.sync()
			require.LessOrEqual(t, s.restores()-restores, 2.0, name)

			receives := len(spec.Egress) > 0 // the other direction isn't isolated
			s.requireTCP(receives, "busybox", "neighbour", 80)
			s.requireTCP(!receives, "neighbour", "busybox", 80)
			s.requireTCP(true, "busybox", "tenant", 80)
			s.requireTCP(false, "busybox", "tenant", 81)
			status := observed(report.New(nil, nil, "node-1", logr.Discard()), s.enforcer.view, nil)
			require.Equal(t, "ours/innocent@1 default/expensive!TooExpensive", reporttest.List(status), name)
			require.Contains(t, status.Failures[0].Message, "limit of a policy", name)
			require.Equal(t, v1alpha1.NodeReasonTooExpensive, s.enforcer.budgets.condition().Reason, name)

			// It says less now.
			s.apply("metadata: {name: expensive}\nspec: {podSelector: {matchLabels: {app: neighbour}}, policyTypes: [Ingress], ingress: [{ports: [{port: 81}]}]}")
			s.remove("innocent")
			s.sync()
			s.requireTCP(true, "busybox", "neighbour", 81)
			s.requireTCP(true, "busybox", "tenant", 81)
			require.Equal(t, v1alpha1.NodeReasonAffordable, s.enforcer.budgets.condition().Reason, name)
		}
	})
}

// What a hostile namespace may have at most leaves another one's packet with the rules
// that it would pass alone, and its changes with one restore of each family.
func TestAPacketPassesItsOwnRulesAlone(t *testing.T) {
	s := walkThroughScene(t, iptables.NFT)
	s.pod("ours", "tenant", nil, "10.244.1.12", "fd00:10:244:1::12")
	s.apply("metadata: {name: innocent, namespace: ours}\nspec: {podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}]}")
	s.sync()
	alone := s.chainOf("innocent")
	for number := range 12 {
		s.model.SetPolicy(policy.ParseNetworkPolicy(budgettest.Named("default", string(rune('a'+number)), number, budgettest.Peers(40, 150+number))))
	}
	s.enforcer.pace = pacing.New() // as of an agent that starts, which writes all at once
	restores := s.restores()
	s.sync()
	require.Equal(t, 2.0, s.restores()-restores, "one pass")
	require.Equal(t, alone, s.chainOf("innocent"))
	require.Len(t, s.enforcer.budgets.closed, 8, "of 440 rules each four fit into the chain of a pod")
	s.requireTCP(true, "busybox", "tenant", 80)
	s.requireTCP(false, "busybox", "neighbour", 80)
}

// chainOf returns the rules of the pods that the policy isolates.
func (s *scene) chainOf(name string) map[ruleset.Family][]ruleset.Rule {
	rules := map[ruleset.Family][]ruleset.Rule{}
	for _, output := range s.enforcer.outputs {
		for _, chain := range output.Ruleset.Chains {
			for _, origin := range output.Origins[chain.Name] {
				if origin.Name == name {
					rules[output.Ruleset.Family] = chain.Rules
				}
			}
		}
	}
	return rules
}
