package appisolation

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/moat-dev/moat/apis/v1alpha1"
)

// apiServerService is the Service whose EndpointSlices the API servers write.
var apiServerService = types.NamespacedName{Namespace: metav1.NamespaceDefault, Name: "kubernetes"}

// defaultDNSPorts is the default of the CRD.
var defaultDNSPorts = []v1alpha1.Port{
	{Port: new(intstr.FromInt32(53)), Protocol: "UDP"},
	{Port: new(intstr.FromInt32(53)), Protocol: "TCP"},
}

// entity compiles a peer by name. One that this version doesn't know allows
// nobody: a newer CRD may know more.
func (c *compiler) entity(entity v1alpha1.Entity) []grant {
	switch entity {
	case v1alpha1.EntityAnywhere:
		return []grant{{anyone: true}}
	case v1alpha1.EntitySameNamespace:
		return peersOnly(networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{}})
	case v1alpha1.EntityAllNamespaces:
		return peersOnly(networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}})
	case v1alpha1.EntityKubeAPIServer:
		return c.apiServer()
	}
	if c.world.config == nil {
		return c.notConfigured(entity, "there is no IsolationConfig named "+v1alpha1.IsolationConfigName)
	}
	switch config := c.world.config; entity {
	case v1alpha1.EntityInternet:
		return peersOnly(internet(config.ClusterCIDRs)...)
	case v1alpha1.EntityNodes:
		return c.nodes(entity)
	case v1alpha1.EntityDNS:
		return c.dns()
	case v1alpha1.EntityIngressControllers:
		return c.configured(entity, config.IngressControllers)
	case v1alpha1.EntityMonitoring:
		return c.configured(entity, config.Monitoring)
	}
	return c.notConfigured(entity, "this version of Moat doesn't know it")
}

func (c *compiler) notConfigured(entity v1alpha1.Entity, why string) []grant {
	return c.unresolved(v1alpha1.ReasonEntityNotConfigured, "entity %s: %s", entity, why)
}

// dns is a grant with the ports of DNS.
func (c *compiler) dns() []grant {
	if c.world.config == nil {
		return c.notConfigured(v1alpha1.EntityDNS, "there is no IsolationConfig named "+v1alpha1.IsolationConfigName)
	}
	config := c.world.config.DNS
	if config == nil {
		return c.configured(v1alpha1.EntityDNS, nil)
	}
	all := grant{ports: compilePorts(config.DeepCopy().Ports), ownPorts: true}
	if len(all.ports) == 0 { // Stored without the CRD's default. Not every port.
		all.ports = compilePorts(defaultDNSPorts)
	}
	all.add(c.configured(v1alpha1.EntityDNS, &config.EntityConfig)...)
	return []grant{all}
}

// configured compiles what the IsolationConfig says of an entity.
func (c *compiler) configured(entity v1alpha1.Entity, config *v1alpha1.EntityConfig) []grant {
	if config == nil {
		return c.notConfigured(entity, "IsolationConfig "+v1alpha1.IsolationConfigName+" doesn't say who that is")
	}
	var all grant
	for _, peer := range config.Peers {
		switch {
		case peer.App != nil && peer.App.Namespaces != nil:
			all.add(peersOnly(compileApp(peer.App))...)
		case peer.CIDR != nil:
			all.add(peersOnly(compileCIDR(peer.CIDR))...)
		case peer.Entity == v1alpha1.ConfigEntityNodes:
			all.add(c.nodes(entity)...)
		}
	}
	return []grant{all}
}

// apiServer is a grant with the ports of the API servers.
func (c *compiler) apiServer() []grant {
	grants := endpointGrants(c.world.apiServer, nil)
	if len(grants) == 0 {
		return c.notConfigured(v1alpha1.EntityKubeAPIServer, "there are no EndpointSlices of Service "+apiServerService.String())
	}
	return grants
}

// apiServerTunnels returns the further addresses of the nodes that API servers run
// on: what a node sends over a tunnel to the pods of another comes from the
// tunnel's address.
func (c *compiler) apiServerTunnels() []networkingv1.NetworkPolicyPeer {
	servers := addressesOf(c.world.apiServer)
	var tunnels []netip.Addr
	for _, node := range c.world.nodes {
		runsServer := func(address netip.Addr) bool { return slices.Contains(servers, address) }
		if slices.ContainsFunc(nodeAddresses(node), runsServer) {
			tunnels = append(tunnels, tunnelAddresses(node)...)
		}
	}
	return ipBlocks(tunnels)
}

// nodes returns the ranges that the IsolationConfig gives, and else what each Node
// says of itself.
func (c *compiler) nodes(entity v1alpha1.Entity) []grant {
	if ranges := c.world.config.NodeCIDRs; len(ranges) > 0 {
		var peers []networkingv1.NetworkPolicyPeer
		for _, cidr := range slices.Sorted(slices.Values(ranges)) {
			peers = append(peers, compileCIDR(&v1alpha1.CIDRPeer{CIDR: cidr}))
		}
		return peersOnly(peers...)
	}
	var addresses []netip.Addr
	for _, node := range c.world.nodes {
		addresses = append(addresses, nodeAddresses(node)...)
		addresses = append(addresses, tunnelAddresses(node)...)
	}
	if len(addresses) == 0 {
		return c.notConfigured(entity, "no Node has an address")
	}
	return peersOnly(ipBlocks(addresses)...)
}

func nodeAddresses(node corev1.Node) []netip.Addr {
	var addresses []netip.Addr
	for _, address := range node.Status.Addresses {
		if address.Type == corev1.NodeInternalIP || address.Type == corev1.NodeExternalIP {
			addresses = appendAddress(addresses, address.Address)
		}
	}
	return addresses
}

// tunnelAddresses returns the first address of each of the node's pod ranges.
// Flannel gives it to the node's end of the tunnel, and no pod gets it.
func tunnelAddresses(node corev1.Node) []netip.Addr {
	var addresses []netip.Addr
	for _, text := range node.Spec.PodCIDRs {
		if prefix, err := netip.ParsePrefix(text); err == nil {
			addresses = append(addresses, prefix.Masked().Addr().Unmap())
		}
	}
	return addresses
}
