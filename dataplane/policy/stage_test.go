package policy

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
)

// byPort is a policy with one rule for each port, for all peers and in both directions.
func byPort(name string, rules ...Rule) *Policy {
	return &Policy{Name: name, Rules: [Directions][]Rule{Ingress: rules, Egress: rules}}
}

func onPort(port uint16, a action) Rule {
	return Rule{AnyPeer: true, Ports: []Port{{Protocol: TCP, First: port, Last: port}}, action: a}
}

// tier is a stage of cluster-wide policies: what no rule matches goes to the next stage.
func tier(policies ...*Policy) stage { return stage{policies: policies, last: pass} }

// Tiers of cluster-wide policies surround the stage of the NetworkPolicies. This plays what they
// will mean: https://network-policy-api.sigs.k8s.io.
func TestStagesDecideInOrder(t *testing.T) {
	admin := tier(
		byPort("first", onPort(1, deny), onPort(2, accept), onPort(3, pass), onPort(4, pass), onPort(4, deny)),
		byPort("second", onPort(1, accept), onPort(2, deny), onPort(3, deny), onPort(5, accept)),
	)
	namespaced := networkPolicies([]*Policy{byPort("np", onPort(1, accept), onPort(3, accept), onPort(6, accept))})
	baseline := tier(byPort("base", onPort(2, deny), onPort(4, deny), onPort(6, deny), onPort(7, accept)))

	for _, row := range []struct {
		port     uint16
		what     string
		isolated answer // with NetworkPolicies that isolate the pod
		open     answer // without
	}{
		{1, "an earlier tier denies what a later stage would accept", answer{deny, admin.policies[0], 0}, answer{deny, admin.policies[0], 0}},
		{2, "of one tier the first rule that matches decides", answer{accept, admin.policies[0], 1}, answer{accept, admin.policies[0], 1}},
		{3, "pass skips the rest of the tier, and the next stage decides", answer{accept, namespaced.policies[0], 1}, answer{action: pass}},
		{4, "what is passed is denied where no NetworkPolicy accepts it, or by the baseline", answer{action: deny}, answer{deny, baseline.policies[0], 1}},
		{5, "policies of a tier are asked in order", answer{accept, admin.policies[1], 3}, answer{accept, admin.policies[1], 3}},
		{6, "what NetworkPolicies accept, no baseline denies", answer{accept, namespaced.policies[0], 2}, answer{deny, baseline.policies[0], 2}},
		{7, "what NetworkPolicies don't accept, no baseline accepts", answer{action: deny}, answer{accept, baseline.policies[0], 3}},
		{8, "the last stage has the last word", answer{action: deny}, answer{action: pass}},
	} {
		for _, d := range []Direction{Ingress, Egress} {
			q := &question{in: clusterLookup{&Cluster{}}, direction: d, flow: Flow{Protocol: TCP, Port: row.port}, other: end{addr: netip.MustParseAddr("192.0.2.7")}}
			require.Equal(t, row.isolated, q.ask(admin, namespaced, baseline), "port %d: %s", row.port, row.what)
			require.Equal(t, row.open, q.ask(admin, baseline), "port %d without NetworkPolicies: %s", row.port, row.what)
		}
	}
	q := &question{in: clusterLookup{&Cluster{}}, flow: Flow{Protocol: TCP, Port: 8}}
	require.Equal(t, answer{action: pass}, q.ask(), "no stage is asked")
	require.Equal(t, answer{action: deny}, q.ask(admin, stage{last: deny}), "the last stage may deny the rest")
}
