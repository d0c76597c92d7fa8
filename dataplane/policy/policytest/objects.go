package policytest

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/moat-dev/moat/dataplane/policy"
)

// Objects is a cluster as the API server stores it.
type Objects struct {
	Pods       []corev1.Pod                 `json:"pods,omitempty"`
	Namespaces []corev1.Namespace           `json:"namespaces,omitempty"`
	Policies   []networkingv1.NetworkPolicy `json:"policies,omitempty"`
}

// String prints the objects as YAML, to reproduce a failure.
func (o *Objects) String() string {
	text, err := yaml.Marshal(o)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// Cluster reads the objects as the agent does. The nodes are those of generated
// clusters.
func (o *Objects) Cluster() *policy.Cluster {
	c := &policy.Cluster{Namespaces: policy.Namespaces{}, Nodes: map[netip.Addr]string{}}
	for n := range NodeCount {
		for _, addr := range nodeAddresses(n) {
			c.Nodes[netip.MustParseAddr(addr)] = NodeName(n)
		}
	}
	for i := range o.Pods {
		c.Pods = append(c.Pods, policy.ParsePod(&o.Pods[i]))
	}
	for i := range o.Namespaces {
		c.Namespaces[o.Namespaces[i].Name] = o.Namespaces[i].Labels
	}
	for i := range o.Policies {
		c.Policies = append(c.Policies, policy.ParseNetworkPolicy(&o.Policies[i]))
	}
	return c
}

// Selects reports whether the peer selects the pod: what an index of peers has to agree with.
func Selects(peer *policy.PodPeer, pod *policy.Pod, namespaces policy.Namespaces) bool {
	return len(pod.Addrs) > 0 && peer.Pods.Matches(pod.Labels) && peer.MatchesNamespace(pod.Namespace, namespaces)
}
