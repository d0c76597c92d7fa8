package compile_test

import (
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/compile"
	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/ruleset"
)

// A policy without rules isolates its pods: the chain of their policies drops all that comes.
func ExampleCompile() {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "closed"}}
	pod := &policy.Pod{Namespace: "shop", Name: "db", Subject: true, Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2")}}
	endpoints := policy.Endpoints([]*policy.Pod{pod}, []*policy.Policy{policy.ParseNetworkPolicy(np)})

	output := compile.Compile(compile.Host{}, ruleset.IPv4, endpoints, compile.Links{}, compile.Guard{})
	for chain, policies := range output.Origins {
		fmt.Println(chain, "is of", policies[0].Key())
		for _, c := range output.Ruleset.Chains {
			if c.Name == chain {
				fmt.Println("it drops:", c.Rules[len(c.Rules)-1].Action == ruleset.Drop)
			}
		}
	}
	for member := range output.Isolated[policy.Ingress] {
		fmt.Println("isolated:", member.Prefix)
	}
	// Output:
	// MOAT-I-OKKLO07AR4TJD9O0 is of shop/closed
	// it drops: true
	// isolated: 10.244.1.2/32
}
