package oracles

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"sigs.k8s.io/kube-network-policies/pkg/api"
	"sigs.k8s.io/kube-network-policies/pkg/network"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
	"sigs.k8s.io/kube-network-policies/pkg/podinfo"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// kubeNetworkPolicies is the engine of kube-network-policies as its agent wires
// it. Its informers never run: their stores are filled by hand.
type kubeNetworkPolicies struct{ engine *networkpolicy.PolicyEngine }

func newKubeNetworkPolicies(o *policytest.Objects) engine {
	factory := informers.NewSharedInformerFactory(nil, 0)
	pods, namespaces := factory.Core().V1().Pods(), factory.Core().V1().Namespaces()
	policies := factory.Networking().V1().NetworkPolicies()
	resolver, err := podinfo.NewInformerResolver(pods.Informer())
	must(err)
	for i := range o.Pods {
		must(pods.Informer().GetIndexer().Add(&o.Pods[i]))
	}
	for i := range o.Namespaces {
		must(namespaces.Informer().GetIndexer().Add(&o.Namespaces[i]))
	}
	for i := range o.Policies {
		must(policies.Informer().GetIndexer().Add(&o.Policies[i]))
	}
	provider := podinfo.NewInformerProvider(pods, namespaces, nil, []podinfo.IPResolver{resolver})
	standard := networkpolicy.NewStandardNetworkPolicy("any", namespaces, pods, policies)
	return &kubeNetworkPolicies{networkpolicy.NewPolicyEngine(provider, []api.PolicyEvaluator{standard})}
}

func (e *kubeNetworkPolicies) allows(flow policy.Flow) bool {
	packet := &network.Packet{
		Family:  corev1.IPv4Protocol,
		SrcIP:   flow.Source.AsSlice(),
		DstIP:   flow.Destination.AsSlice(),
		Proto:   protocolName(flow.Protocol),
		DstPort: int(flow.Port),
	}
	if flow.Source.Is6() {
		packet.Family = corev1.IPv6Protocol
	}
	allowed, err := e.engine.EvaluatePacket(context.Background(), packet)
	must(err)
	return allowed
}

// must is for stores in memory, whose errors are mistakes of this package.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
