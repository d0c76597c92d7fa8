package budget_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/budget"
	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
	"github.com/moat-dev/moat/dataplane/ruleset"
	"github.com/moat-dev/moat/dataplane/selector"
)

// Random clusters have everything that a policy can say. Nothing that compile makes of it
// is more than what was counted.
func TestWhatIsCompiledIsNeverMoreThanWhatWasCounted(t *testing.T) {
	built := budget.Amounts{}
	for seed := range uint64(400) {
		objects := policytest.RandomDice(seed, 900).Cluster()
		cluster := objects.Cluster()
		for n := range policytest.NodeCount {
			name := policytest.NodeName(n)
			index := selector.NewIndex()
			var local []*policy.Pod
			for _, pod := range cluster.Pods {
				index.SetPod(pod)
				if pod.Node == name && pod.Subject {
					local = append(local, pod)
				}
			}
			for namespace, labels := range cluster.Namespaces {
				index.SetNamespace(namespace, labels)
			}
			endpoints := policy.Endpoints(local, cluster.Policies)
			decision := budget.NewLedger().Decide(budget.Defaults(), endpoints, index)
			require.Empty(t, decision.Closed)
			now := compiled(endpoints, index)
			for r := range budget.Resources {
				require.LessOrEqual(t, now[r], decision.Used[r], "%s of %s, seed %d\n%s", r, name, seed, objects)
				built[r] += now[r]
			}
		}
	}
	for r := range budget.Resources {
		require.Greater(t, built[r], 100, r)
	}
}

// compiled counts what the endpoints become in both families.
func compiled(endpoints []policy.Endpoint, index *selector.Index) budget.Amounts {
	var built budget.Amounts
	for _, family := range ruleset.Families() {
		output := compile.Compile(compile.Host{}, family, endpoints, compile.Links{}, compile.Guard{})
		index.Want(output.Peers)
		for _, set := range output.Ruleset.Sets {
			if _, follows := output.Peers[set.Name]; follows {
				built[budget.Sets]++
				index.Elements(set.Name, func(e policy.Element) {
					if family.Holds(e.Addr) {
						built[budget.Elements]++
					}
				})
			} else if set.Type == ruleset.HashNet {
				built[budget.Sets]++
				built[budget.Prefixes] += len(set.Members)
			}
		}
		for _, chain := range output.Ruleset.Chains {
			if output.Origins[chain.Name] != nil {
				built[budget.Rules] += len(chain.Rules) - 1 // the last one drops
			}
		}
	}
	return built
}
