package oracles

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// class is a point on which an engine reads the API otherwise. Applied to the
// objects, or to the cluster that is read from them, it makes Evaluate read them
// as the engine does.
type class struct {
	name    string
	objects func(*policytest.Objects)
	cluster func(*policy.Cluster)
}

// ownNode: the engines judge what a node sends to its own pods, and leave it to
// others to let it pass.
var ownNode = class{
	name:    "own node",
	cluster: func(c *policy.Cluster) { c.Nodes = nil },
}

// notInNeedsKey: NotIn matches only objects that have the key.
var notInNeedsKey = class{
	name: "NotIn without the key",
	objects: func(o *policytest.Objects) {
		forSelectors(o, func(s *metav1.LabelSelector) {
			for _, e := range s.MatchExpressions {
				if e.Operator == metav1.LabelSelectorOpNotIn {
					s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: e.Key, Operator: metav1.LabelSelectorOpExists})
				}
			}
		})
	},
}

// emptyIsMissing: an empty value in matchLabels matches objects that don't have
// the key. A selector says so by excluding every other value that there is.
var emptyIsMissing = class{
	name: "empty value in matchLabels",
	objects: func(o *policytest.Objects) {
		forSelectors(o, func(s *metav1.LabelSelector) {
			s.MatchLabels = maps.Clone(s.MatchLabels)
			for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
				if s.MatchLabels[key] != "" {
					continue
				}
				delete(s.MatchLabels, key)
				if others := valuesOf(o, key); len(others) > 0 {
					s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: key, Operator: metav1.LabelSelectorOpNotIn, Values: others})
				}
			}
		})
	},
}

// emptyListAllows: a rule list that is there and empty allows everything.
var emptyListAllows = class{
	name: "empty list of rules",
	objects: func(o *policytest.Objects) {
		for i := range o.Policies {
			spec := &o.Policies[i].Spec
			if spec.Ingress != nil && len(spec.Ingress) == 0 {
				spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}}
			}
			if spec.Egress != nil && len(spec.Egress) == 0 {
				spec.Egress = []networkingv1.NetworkPolicyEgressRule{{}}
			}
		}
	},
}

// nameIsPortZero: a named port matches port 0 of its protocol too.
var nameIsPortZero = class{
	name: "port 0 for a name",
	cluster: func(c *policy.Cluster) {
		for _, p := range c.Policies {
			for d := range p.Rules {
				for i := range p.Rules[d] {
					for _, port := range p.Rules[d][i].Ports {
						if port.Name != "" {
							p.Rules[d][i].Ports = append(p.Rules[d][i].Ports, policy.Port{Protocol: port.Protocol})
						}
					}
				}
			}
		}
	},
}

// sidecarsServeNothing: only ordinary containers have named ports.
var sidecarsServeNothing = class{
	name: "named port of a sidecar",
	objects: func(o *policytest.Objects) {
		for i := range o.Pods {
			o.Pods[i].Spec.InitContainers = nil
		}
	},
}

// endedKeepsAddress: a pod that has ended keeps its address until a pod that is
// alive shows it.
var endedKeepsAddress = class{
	name: "address of an ended pod",
	objects: func(o *policytest.Objects) {
		alive := map[string]bool{}
		for i := range o.Pods {
			if pod := &o.Pods[i]; pod.Status.Phase == corev1.PodRunning && !pod.Spec.HostNetwork {
				for _, ip := range pod.Status.PodIPs {
					alive[ip.IP] = true
				}
			}
		}
		for i := range o.Pods {
			if pod := &o.Pods[i]; pod.Status.Phase != corev1.PodRunning {
				pod.Status.Phase = corev1.PodRunning
				pod.Status.PodIPs = slices.DeleteFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return alive[ip.IP] })
			}
		}
	},
}

func forSelectors(o *policytest.Objects, do func(*metav1.LabelSelector)) {
	peers := func(peers []networkingv1.NetworkPolicyPeer) {
		for _, peer := range peers {
			for _, s := range []*metav1.LabelSelector{peer.PodSelector, peer.NamespaceSelector} {
				if s != nil {
					do(s)
				}
			}
		}
	}
	for i := range o.Policies {
		spec := &o.Policies[i].Spec
		do(&spec.PodSelector)
		for _, rule := range spec.Ingress {
			peers(rule.From)
		}
		for _, rule := range spec.Egress {
			peers(rule.To)
		}
	}
}

// valuesOf returns the values other than the empty one that pods and namespaces
// have for a label.
func valuesOf(o *policytest.Objects, key string) []string {
	values := map[string]bool{}
	for i := range o.Pods {
		values[o.Pods[i].Labels[key]] = true
	}
	for i := range o.Namespaces {
		values[o.Namespaces[i].Labels[key]] = true
	}
	delete(values, "")
	return slices.Sorted(maps.Keys(values))
}
