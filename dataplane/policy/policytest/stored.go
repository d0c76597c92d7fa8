package policytest

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
)

// StoredCluster makes a cluster as an API server of today stores it: every part
// can be read, defaults are set, every pod's namespace is known, addresses of pods
// are canonical, a container uses a port's name once, and no two pods that are
// alive show one address.
func (d *Dice) StoredCluster() *Objects {
	d.stored = true
	o := d.Cluster()
	for i := range o.Pods {
		for n := range o.Pods[i].Status.PodIPs {
			ip := &o.Pods[i].Status.PodIPs[n]
			ip.IP = netip.MustParseAddr(ip.IP).String()
		}
		spec := &o.Pods[i].Spec
		for c := range spec.Containers {
			spec.Containers[c].Ports = storedPorts(spec.Containers[c].Ports)
		}
		for c := range spec.InitContainers {
			spec.InitContainers[c].Ports = storedPorts(spec.InitContainers[c].Ports)
		}
	}
	for i := range o.Policies {
		setDefaults(&o.Policies[i].Spec)
	}
	return o
}

func storedPorts(ports []corev1.ContainerPort) []corev1.ContainerPort {
	var stored []corev1.ContainerPort
	names := map[string]bool{}
	for _, port := range ports {
		if names[port.Name] {
			continue
		}
		names[port.Name] = true
		if port.Protocol == "" {
			port.Protocol = corev1.ProtocolTCP
		}
		stored = append(stored, port)
	}
	return stored
}

func setDefaults(spec *networkingv1.NetworkPolicySpec) {
	if len(spec.PolicyTypes) == 0 {
		spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		if len(spec.Egress) > 0 {
			spec.PolicyTypes = append(spec.PolicyTypes, networkingv1.PolicyTypeEgress)
		}
	}
	for i := range spec.Ingress {
		setProtocols(spec.Ingress[i].Ports)
	}
	for i := range spec.Egress {
		setProtocols(spec.Egress[i].Ports)
	}
}

func setProtocols(ports []networkingv1.NetworkPolicyPort) {
	for i := range ports {
		if ports[i].Protocol == nil {
			ports[i].Protocol = new(corev1.ProtocolTCP)
		}
	}
}
