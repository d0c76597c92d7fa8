package policy_test

import (
	"fmt"
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/moat-dev/moat/dataplane/policy"
)

// The pods of role=db accept connections from those of role=frontend, and from no other
// pod. The verdict names the rule that decided.
func ExampleCluster_Evaluate() {
	pod := func(name, role, addr string) *policy.Pod {
		return &policy.Pod{
			Namespace: "shop", Name: name, Labels: labels.Set{"role": role}, Subject: true,
			Addrs: []netip.Addr{netip.MustParseAddr(addr)},
		}
	}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}}
	np.Spec.PodSelector.MatchLabels = map[string]string{"role": "db"}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
		PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"role": "frontend"}},
	}}}}
	cluster := &policy.Cluster{
		Pods:       []*policy.Pod{pod("db", "db", "10.244.1.2"), pod("web", "frontend", "10.244.2.2"), pod("batch", "batch", "10.244.2.3")},
		Namespaces: policy.Namespaces{"shop": nil},
		Policies:   []*policy.Policy{policy.ParseNetworkPolicy(np)},
	}
	for _, source := range []string{"10.244.2.2", "10.244.2.3"} {
		fmt.Println(cluster.Evaluate(policy.Flow{
			Source: netip.MustParseAddr(source), Destination: netip.MustParseAddr("10.244.1.2"), Protocol: policy.TCP, Port: 5432,
		}))
	}
	// Output:
	// allowed: 10.244.2.2 -> 10.244.1.2 TCP port 5432
	// Egress of pod shop/web: allowed, no policy isolates it
	// Ingress of pod shop/db: allowed by shop/db, spec.ingress[0]
	// denied: 10.244.2.3 -> 10.244.1.2 TCP port 5432
	// Egress of pod shop/batch: allowed, no policy isolates it
	// Ingress of pod shop/db: denied, no rule of the policies that isolate it matches
	//   shop/db, spec.ingress[0]: the labels of the pod of 10.244.2.3 don't match (role=frontend)
}
