package policytest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// What is generated is only worth as much as what it contains.
func TestClustersHaveEverything(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		o := policytest.RandomDice(seed, 900).Cluster()
		c := o.Cluster()
		for i := range o.Pods {
			pod := policy.ParsePod(&o.Pods[i])
			count(seen, "hostNetwork", o.Pods[i].Spec.HostNetwork)
			count(seen, "ended", !pod.Subject && !o.Pods[i].Spec.HostNetwork)
			count(seen, "terminating", pod.Terminating)
			for _, addr := range pod.Addrs {
				count(seen, "shared address", len(policy.OwnersOf(addr, c.Pods, nil).All) > 1)
				count(seen, "IPv6", addr.Is6())
			}
			_, known := c.Namespaces[pod.Namespace]
			count(seen, "unknown namespace", !known)
		}
		for _, p := range c.Policies {
			count(seen, "unreadable", len(p.Unreadable) > 0)
			for d := range policy.Direction(policy.Directions) {
				count(seen, "undeclared direction", !p.Isolates[d] && len(p.Rules[d]) > 0)
				count(seen, "closed", p.Isolates[d] && len(p.Rules[d]) == 0)
				for _, rule := range p.Rules[d] {
					countRule(seen, &rule)
				}
			}
		}
	}
	for _, what := range []string{
		"hostNetwork", "ended", "terminating", "shared address", "IPv6", "unknown namespace", "unreadable",
		"undeclared direction", "closed", "any peer", "any port", "no readable peer", "several excepts", "/0",
		"name", "range", "SCTP",
	} {
		require.Greater(t, seen[what], 10, what)
	}
}

func countRule(seen map[string]int, rule *policy.Rule) {
	count(seen, "any peer", rule.AnyPeer)
	count(seen, "any port", rule.AnyPort)
	count(seen, "no readable peer", !rule.AnyPeer && len(rule.Peers) == 0)
	for _, peer := range rule.Peers {
		if peer.Block != nil {
			count(seen, "several excepts", len(peer.Block.Except) > 1)
			count(seen, "/0", peer.Block.CIDR.Bits() == 0)
		}
	}
	for _, port := range rule.Ports {
		count(seen, "name", port.Name != "")
		count(seen, "range", port.First < port.Last)
		count(seen, "SCTP", port.Protocol == policy.SCTP)
	}
}

func count(seen map[string]int, what string, is bool) {
	if is {
		seen[what]++
	}
}

// A cluster that an API server stores has nothing that can't be read, and no
// address of two live pods.
func TestStoredClusters(t *testing.T) {
	for seed := range uint64(200) {
		o := policytest.RandomDice(seed, 900).StoredCluster()
		c := o.Cluster()
		for _, p := range c.Policies {
			require.Empty(t, p.Unreadable)
		}
		for _, pod := range c.Pods {
			require.Contains(t, c.Namespaces, pod.Namespace)
			for _, addr := range pod.Addrs {
				require.Len(t, policy.OwnersOf(addr, c.Pods, nil).All, 1)
			}
		}
	}
}
