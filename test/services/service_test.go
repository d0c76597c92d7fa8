package services

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/moat-dev/moat/test/cluster"
)

// service is a Service as clients use it.
type service struct {
	clusterIPs, balancers []netip.Addr
	tcp, udp              uint16 // node ports
}

// endpoint is where a Service leads to.
type endpoint struct {
	addrs    []netip.Addr
	node     *cluster.Node
	tcp, udp int32
}

// backend is the endpoint of a pod that serves the usual targets.
func backend(pod *cluster.Pod) endpoint {
	return endpoint{addrs: pod.Addrs, node: pod.Node, tcp: targetTCP, udp: targetUDP}
}

// addService adds a Service with an address of each kind, and EndpointSlices as the
// endpoint slice controller writes them: endpoints with other ports are in another
// slice.
func (s *scene) addService(t *testing.T, name string, external corev1.ServiceExternalTrafficPolicy, endpoints ...endpoint) *service {
	t.Helper()
	dual := corev1.IPFamilyPolicyRequireDualStack
	object := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: external, IPFamilyPolicy: &dual,
			Ports: []corev1.ServicePort{
				{Name: "tcp", Protocol: corev1.ProtocolTCP, Port: portTCP, TargetPort: intstr.FromString("web")},
				{Name: "udp", Protocol: corev1.ProtocolUDP, Port: portUDP, TargetPort: intstr.FromInt32(targetUDP)},
			},
		},
	}
	require.NoError(t, s.Client.Create(t.Context(), object))
	made := &service{tcp: uint16(object.Spec.Ports[0].NodePort), udp: uint16(object.Spec.Ports[1].NodePort)}
	for family, ip := range object.Spec.ClusterIPs {
		made.clusterIPs = append(made.clusterIPs, netip.MustParseAddr(ip))
		balancer := addressIn(netip.MustParsePrefix(balancers[family]), len(s.services)+1)
		made.balancers = append(made.balancers, balancer)
		object.Status.LoadBalancer.Ingress = append(object.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: balancer.String()})
	}
	require.NoError(t, s.Client.Status().Update(t.Context(), object))
	for i, e := range endpoints {
		for family, addressType := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
			s.addSlice(t, name, fmt.Sprintf("%s-%d-%d", name, i, family), addressType, e, e.addrs[family])
		}
	}
	s.services[name] = made
	return made
}

func (s *scene) addSlice(t *testing.T, service, name string, addressType discoveryv1.AddressType, e endpoint, addr netip.Addr) {
	t.Helper()
	yes, tcp, udp := true, corev1.ProtocolTCP, corev1.ProtocolUDP
	names := []string{"tcp", "udp"}
	require.NoError(t, s.Client.Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: addressType,
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{addr.String()}, NodeName: &e.node.Name,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes},
		}},
		Ports: []discoveryv1.EndpointPort{
			{Name: &names[0], Protocol: &tcp, Port: &e.tcp},
			{Name: &names[1], Protocol: &udp, Port: &e.udp},
		},
	}))
}

// addressIn returns the address of a number in a prefix.
func addressIn(prefix netip.Prefix, number int) netip.Addr {
	bytes := prefix.Addr().AsSlice()
	bytes[len(bytes)-1] = byte(number)
	addr, _ := netip.AddrFromSlice(bytes)
	return addr
}

func numbered(protocol corev1.Protocol, number int32) networkingv1.NetworkPolicyPort {
	port := intstr.FromInt32(number)
	return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port}
}

func named(name string) networkingv1.NetworkPolicyPort {
	protocol, port := corev1.ProtocolTCP, intstr.FromString(name)
	return networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &port}
}
