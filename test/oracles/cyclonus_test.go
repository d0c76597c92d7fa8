package oracles

import (
	"net/netip"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/moat-dev/moat/dataplane/policy"
	"github.com/moat-dev/moat/dataplane/policy/policytest"
)

// cyclonus is the matcher that Cyclonus predicts the results of its probes with.
// It takes peers as its caller describes them, so who owns an address and what a
// port is called is read here from the objects, and not by package policy.
type cyclonus struct {
	policies *matcher.Policy
	pods     map[netip.Addr]*corev1.Pod
	labels   map[string]map[string]string // of the namespaces
}

func newCyclonus(o *policytest.Objects) engine {
	var policies []*networkingv1.NetworkPolicy
	for i := range o.Policies {
		policies = append(policies, &o.Policies[i])
	}
	e := &cyclonus{matcher.BuildNetworkPolicies(false, policies), map[netip.Addr]*corev1.Pod{}, map[string]map[string]string{}}
	for i := range o.Namespaces {
		e.labels[o.Namespaces[i].Name] = o.Namespaces[i].Labels
	}
	for i := range o.Pods {
		pod := &o.Pods[i]
		if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for _, ip := range pod.Status.PodIPs {
			e.pods[netip.MustParseAddr(ip.IP)] = pod
		}
	}
	return e
}

func (e *cyclonus) allows(flow policy.Flow) bool {
	return e.allowsDirection(flow, true) && e.allowsDirection(flow, false)
}

// allowsDirection asks once for each name of the port: the matcher knows one at a
// time.
func (e *cyclonus) allowsDirection(flow policy.Flow, isIngress bool) bool {
	protocol := protocolName(flow.Protocol)
	traffic := &matcher.Traffic{
		Source:       e.peer(flow.Source),
		Destination:  e.peer(flow.Destination),
		ResolvedPort: int(flow.Port),
		Protocol:     protocol,
	}
	for _, name := range append([]string{""}, portNames(e.pods[flow.Destination], int32(flow.Port), protocol)...) {
		traffic.ResolvedPortName = name
		if e.policies.IsIngressOrEgressAllowed(traffic, isIngress).IsAllowed() {
			return true
		}
	}
	return false
}

func (e *cyclonus) peer(addr netip.Addr) *matcher.TrafficPeer {
	peer := &matcher.TrafficPeer{IP: addr.String()}
	if pod := e.pods[addr]; pod != nil {
		peer.Internal = &matcher.InternalPeer{PodLabels: pod.Labels, Namespace: pod.Namespace, NamespaceLabels: e.labels[pod.Namespace]}
	}
	return peer
}

// portNames returns what a pod calls a port. Of a name that two containers use
// the first counts.
func portNames(pod *corev1.Pod, number int32, protocol corev1.Protocol) []string {
	if pod == nil {
		return nil
	}
	containers := pod.Spec.Containers
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers[:len(containers):len(containers)], c)
		}
	}
	type served struct {
		name     string
		protocol corev1.Protocol
	}
	taken := map[served]bool{}
	var names []string
	for _, c := range containers {
		for _, port := range c.Ports {
			key := served{port.Name, port.Protocol}
			if !taken[key] && port.ContainerPort == number && port.Protocol == protocol {
				names = append(names, port.Name)
			}
			taken[key] = true
		}
	}
	return names
}

// protocolName is the API's name, or one of the engines' liking for a protocol
// that the API has none for.
func protocolName(p policy.Protocol) corev1.Protocol {
	switch p {
	case policy.TCP:
		return corev1.ProtocolTCP
	case policy.UDP:
		return corev1.ProtocolUDP
	case policy.SCTP:
		return corev1.ProtocolSCTP
	}
	return "other"
}
