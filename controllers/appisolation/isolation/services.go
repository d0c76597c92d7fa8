package isolation

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// service compiles what a Service leads to. A policy is asked about packets after
// the Service's address has been replaced, so that the pods and their target ports
// count, and not the Service's address and port.
func (c *compiler) service(peer *v1alpha1.ServicePeer) []grant {
	key := serviceKey(peer, c.namespace)
	found, exists := c.world.Services[key]
	switch {
	case !exists:
		return c.unresolved(v1alpha1.ReasonServiceNotFound, "Service %s doesn't exist", key)
	case found.Object.Spec.Type == corev1.ServiceTypeExternalName:
		return c.unresolved(v1alpha1.ReasonServiceUnsupported, "Service %s is of type ExternalName, which leads to a name and not to addresses", key)
	case len(found.Object.Spec.Selector) > 0:
		return []grant{c.selectedBy(found.Object)}
	case len(found.Object.Spec.Ports) == 0:
		// Headless: what its name resolves to, at any port.
		return []grant{{peers: ipBlocks(addressesOf(found.Slices)), ownPorts: true}}
	}
	return endpointGrants(found.Slices, portNames(found.Object))
}

func serviceKey(peer *v1alpha1.ServicePeer, namespace string) types.NamespacedName {
	return types.NamespacedName{Namespace: cmp.Or(peer.Namespace, namespace), Name: peer.Name}
}

// selectedBy compiles a Service with a selector. A target port's name is resolved
// at each pod, by the Service and by the policy alike.
func (c *compiler) selectedBy(service *corev1.Service) grant {
	peer := networkingv1.NetworkPolicyPeer{
		PodSelector: &metav1.LabelSelector{MatchLabels: maps.Clone(service.Spec.Selector)},
	}
	if service.Namespace != c.namespace {
		peer.NamespaceSelector = namespacesNamed(service.Namespace)
	}
	var ports portSet
	for _, port := range service.Spec.Ports {
		ports.add(port.Protocol, targetPort(port))
	}
	return grant{peers: []networkingv1.NetworkPolicyPeer{peer}, ports: ports.list, ownPorts: true}
}

// targetPort returns the port of the pods: as in Kubernetes, an absent one is the
// Service's port.
func targetPort(port corev1.ServicePort) intstr.IntOrString {
	if port.TargetPort == (intstr.IntOrString{}) {
		return intstr.FromInt32(port.Port)
	}
	return port.TargetPort
}

func portNames(service *corev1.Service) map[string]bool {
	names := map[string]bool{}
	for _, port := range service.Spec.Ports {
		names[port.Name] = true
	}
	return names
}

// endpointGrants compiles EndpointSlices, one grant for all addresses that have the
// same ports. Only ports of the given names count; nil: all. An endpoint counts
// whether it is ready or not, as a pod does. A port without a number is one that
// no Service leads to.
func endpointGrants(endpointSlices []discoveryv1.EndpointSlice, names map[string]bool) []grant {
	groups := map[string]*grant{}
	addresses := map[string][]netip.Addr{}
	for i := range endpointSlices {
		ports := endpointPorts(endpointSlices[i].Ports, names)
		if len(ports.list) == 0 {
			continue
		}
		key := ports.key()
		groups[key] = &grant{ports: ports.list, ownPorts: true}
		addresses[key] = append(addresses[key], addressesOf(endpointSlices[i:i+1])...)
	}
	var grants []grant
	for _, key := range slices.Sorted(maps.Keys(groups)) {
		groups[key].peers = ipBlocks(addresses[key])
		grants = append(grants, *groups[key])
	}
	return grants
}

func endpointPorts(ports []discoveryv1.EndpointPort, names map[string]bool) portSet {
	var set portSet
	for _, port := range ports {
		name, protocol := "", corev1.ProtocolTCP
		if port.Name != nil {
			name = *port.Name
		}
		if port.Protocol != nil {
			protocol = *port.Protocol
		}
		if port.Port != nil && (names == nil || names[name]) {
			set.add(protocol, intstr.FromInt32(*port.Port))
		}
	}
	slices.SortFunc(set.list, func(a, b networkingv1.NetworkPolicyPort) int {
		return cmp.Or(cmp.Compare(*a.Protocol, *b.Protocol), cmp.Compare(a.Port.IntVal, b.Port.IntVal))
	})
	return set
}

// portSet is a list of ports without duplicates.
type portSet struct {
	list []networkingv1.NetworkPolicyPort
}

func (s *portSet) add(protocol corev1.Protocol, port intstr.IntOrString) {
	protocol = cmp.Or(protocol, corev1.ProtocolTCP)
	for _, other := range s.list {
		if *other.Protocol == protocol && *other.Port == port {
			return
		}
	}
	s.list = append(s.list, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port})
}

func (s *portSet) key() string {
	var key strings.Builder
	for _, port := range s.list {
		key.WriteString(string(*port.Protocol) + "/" + port.Port.String() + " ")
	}
	return key.String()
}

// addressesOf returns the addresses of EndpointSlices; names of hosts, which an
// old kind of slice holds, are none.
func addressesOf(endpointSlices []discoveryv1.EndpointSlice) []netip.Addr {
	var addresses []netip.Addr
	for _, slice := range endpointSlices {
		for _, endpoint := range slice.Endpoints {
			for _, text := range endpoint.Addresses {
				addresses = appendAddress(addresses, text)
			}
		}
	}
	return addresses
}

func appendAddress(addresses []netip.Addr, text string) []netip.Addr {
	address, err := netip.ParseAddr(text)
	if err != nil || address.Zone() != "" {
		return addresses
	}
	return append(addresses, address.Unmap())
}

// ipBlocks sorts the addresses and leaves out duplicates.
func ipBlocks(addresses []netip.Addr) []networkingv1.NetworkPolicyPeer {
	slices.SortFunc(addresses, netip.Addr.Compare)
	var peers []networkingv1.NetworkPolicyPeer
	for _, address := range slices.Compact(addresses) {
		block := netip.PrefixFrom(address, address.BitLen())
		peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: block.String()}})
	}
	return peers
}
